<?php
// Signs a token for a viewer, with nothing but PHP: HS256 with the secret of the nodes, or RS256 with a
// private key of which the nodes have the public one (--jwks).
//
//     KANSEI_AUTH_SECRET=... php token.php user-17 lesson-42
//     KANSEI_PRIVATE_KEY=key.pem php token.php user-17 lesson-42

declare(strict_types=1);

function base64url(string $bytes): string
{
    return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
}

/** Signs claims with a secret, or with the private key in a file. */
function token(array $claims, string $secret = '', string $keyFile = ''): string
{
    $header = ['typ' => 'JWT', 'alg' => $keyFile === '' ? 'HS256' : 'RS256'];
    $flags = JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES;
    $text = base64url(json_encode($header, $flags)) . '.' . base64url(json_encode($claims, $flags));
    if ($keyFile === '') {
        return $text . '.' . base64url(hash_hmac('sha256', $text, $secret, true));
    }
    if (!openssl_sign($text, $signature, file_get_contents($keyFile), OPENSSL_ALGO_SHA256)) {
        throw new RuntimeException('the token could not be signed: ' . openssl_error_string());
    }
    return $text . '.' . base64url($signature);
}

[, $user, $room] = $argv;
$now = time();
echo token([
    'sub' => $user,
    'name' => 'さくら',
    'role' => 'viewer',
    'rooms' => [$room],
    'iat' => $now,              // revocations go by it
    'exp' => $now + 3600,
    'jti' => bin2hex(random_bytes(16)),
], (string) getenv('KANSEI_AUTH_SECRET'), (string) getenv('KANSEI_PRIVATE_KEY')), "\n";
