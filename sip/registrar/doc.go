// Package registrar keeps agents' phones: it lets them in by digest, and knows where each one is.
//
// A phone proves that it knows its password with digest authentication (RFC 7616; SHA-256 and MD5 are
// both offered, RFC 8760). Nonces hold no state: each is an HMAC over the time and the source's
// address. Only a nonce that was used rightly is remembered, with a window of its nonce counts, so
// that a captured request cannot be sent again. A source that guesses is locked out for a while; an
// unknown extension gets what a wrong password gets, in the same time.
//
// Several nodes share their phones ([Shared]): each keeps its own, writes them to a [Remote] in the
// background, and reads the others' there. A phone that registers at two nodes has a binding at each;
// [Binding.Phone] tells that they are of one phone.
//
// Deviations: a request without qop (RFC 2069 clients) is refused, since it could be replayed; Path
// (RFC 3327) is not supported, and a phone is reached where its REGISTER came from when its Contact
// names another host.
package registrar
