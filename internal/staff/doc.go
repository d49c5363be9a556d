// Package staff is the people of the hotline: who they are, what they may do, how they log in, and at
// which phone they sit.
//
// Logging in, by a page with a password or by a phone with a PIN, can bind a person to an extension;
// logging out frees it. The queue offers calls to people, the registrar knows extensions, and this
// binding is what joins the two. Rules that want two people compare people ([Distinct]), never sessions,
// tokens or extensions.
//
// Several nodes have one staff: each has a directory of its own, works with it alone, and tells the others
// what changed ([Directory.Changes], [Directory.Apply]). Of each fact the last change wins, so that all
// directories say the same in the end. A page session stays on its node.
//
// Everything is kept in one SQLite file, staff.db. Passwords and PINs are argon2id; session and API
// tokens are kept as their SHA-256; a phone's secret is kept as the HA1 hashes that SIP digest needs
// (RFC 8760 section 2.3), so none can be read back.
package staff
