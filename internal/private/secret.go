package private

// MinSecret is how long a secret that signs must be, in bytes: the size of the hash, as RFC
// 7518 demands.
const MinSecret = 32
