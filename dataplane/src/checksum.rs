//! Checksums: the Internet's one's complement sum (RFC 1071, RFC 1624) and CRC32c (RFC 9260).
