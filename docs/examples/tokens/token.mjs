// Signs a token for a viewer, with nothing but Node.js: HS256 with the secret of the nodes, or RS256 with
// a private key of which the nodes have the public one (--jwks).
//
//     KANSEI_AUTH_SECRET=... node token.mjs user-17 lesson-42
//     KANSEI_PRIVATE_KEY=key.pem node token.mjs user-17 lesson-42

import { createHmac, createSign, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

const base64url = (value) => Buffer.from(value).toString("base64url");

/** Signs claims with a secret, or with the private key in a file. */
export function token(claims, { secret, keyFile }) {
  const header = { typ: "JWT", alg: keyFile ? "RS256" : "HS256" };
  const text = `${base64url(JSON.stringify(header))}.${base64url(JSON.stringify(claims))}`;
  const signature = keyFile
    ? createSign("RSA-SHA256").update(text).sign(readFileSync(keyFile), "base64url")
    : createHmac("sha256", secret).update(text).digest("base64url");
  return `${text}.${signature}`;
}

const [, , user, room] = process.argv;
const now = Math.floor(Date.now() / 1000);
console.log(token({
  sub: user,
  name: "さくら",
  role: "viewer",
  rooms: [room],
  iat: now, // revocations go by it
  exp: now + 3600,
  jti: randomUUID(),
}, { secret: process.env.KANSEI_AUTH_SECRET, keyFile: process.env.KANSEI_PRIVATE_KEY }));
