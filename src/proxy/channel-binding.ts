/**
 * One task: say what binds a SCRAM exchange to a TLS connection: the hash of the certificate that a server shows.
 *
 * `tls-server-end-point` (RFC 5929, 4): the hash is that of the certificate's signature, with SHA-256 in the place of MD5 and SHA-1.
 */
import { createHash, X509Certificate } from 'node:crypto';

/** Hashes by the object identifier of a signature, in DER (RFC 8017, A.2.4; RFC 5758, 3.2). Ed25519 and PSS name none here. */
const HASHES: Readonly<Record<string, string>> = {
  '2a864886f70d010104': 'sha256',
  '2a864886f70d010105': 'sha256',
  '2a864886f70d01010b': 'sha256',
  '2a864886f70d01010c': 'sha384',
  '2a864886f70d01010d': 'sha512',
  '2a8648ce3d0401': 'sha256',
  '2a8648ce3d040302': 'sha256',
  '2a8648ce3d040303': 'sha384',
  '2a8648ce3d040304': 'sha512',
};

/**
 * The channel binding data of whoever shows this certificate; null when the hash is not known, and nothing can be bound.
 *
 * @param certificate PEM or DER
 */
export function channelBinding(certificate: string | Buffer): Buffer | null {
  const { raw } = new X509Certificate(certificate);
  const hash = HASHES[signatureAlgorithm(raw)];
  return hash === undefined ? null : createHash(hash).update(raw).digest();
}

/** Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { algorithm OBJECT IDENTIFIER, ... }, ... } (RFC 5280, 4.1) */
function signatureAlgorithm(raw: Buffer): string {
  const { from } = contents(raw, 0);
  const { end } = contents(raw, from);
  const algorithm = contents(raw, contents(raw, end).from);
  return raw.toString('hex', algorithm.from, algorithm.end);
}

/** Where the contents of the element at `at` begin and end. The certificate has been read by OpenSSL before. */
function contents(raw: Buffer, at: number): { from: number; end: number } {
  const first = raw[at + 1] ?? 0;
  if (first < 0x80) return { from: at + 2, end: at + 2 + first };
  const bytes = first & 0x7f;
  const from = at + 2 + bytes;
  return { from, end: from + raw.readUIntBE(at + 2, bytes) };
}
