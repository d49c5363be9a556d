// Package nodes is what a gateway knows of the other gateways of its cluster, and how they ask one another.
//
// A cluster is several gateways on one Redis that share a secret (nodes.secret_file). Each says every
// second that it lives and what it is ([Cluster.Run]); what they share beyond Redis they ask one another
// over HTTP: live calls ([Feed] and [Mirror]), records, and acts on a call, which the gateway that has the
// call carries out. Who asks has checked what the person may do and says who it is.
//
// A request proves with the secret that it is a gateway's (an HMAC over the request, its receiver, a time
// and a nonce; used once, within 60 s), and its body and its answer are sealed with it (AES-256-GCM): facts
// of a call are personal data. Mutual TLS, when it is configured, comes on top.
//
// A gateway without a secret file stands alone: it is its own list, and asks nobody.
package nodes
