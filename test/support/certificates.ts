/**
 * One task: make certificate authorities and certificates for tests, with nothing but Node: not every machine has `openssl`.
 *
 * X.509 version 3 in DER, signed by ECDSA on P-256 (RFC 5280, 4.1; RFC 5758, 3.2).
 */
import { generateKeyPairSync, sign, type KeyObject } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';

export interface Certificate {
  readonly name: string;
  readonly certificatePem: string;
  readonly keyPem: string;
}

export interface Authority extends Certificate {
  /**
   * Issues a certificate.
   *
   * @param hosts names and addresses it is for
   */
  issue(name: string, hosts: readonly string[], validDays?: number): Certificate;
}

const SEQUENCE = 0x30;
const ECDSA_WITH_SHA256 = tlv(SEQUENCE, oid('2a8648ce3d040302'));
const COMMON_NAME = '550403';
const BASIC_CONSTRAINTS = '551d13';
const KEY_USAGE = '551d0f';
const ALTERNATIVE_NAMES = '551d11';
const DAY_MS = 86_400_000;

let serials = 1;

/** An authority that nobody else trusts. */
export function makeAuthority(name: string): Authority {
  const { privateKey, publicKey } = keyPair();
  // keyCertSign and cRLSign, the bits 5 and 6.
  const extensions = [
    extension(BASIC_CONSTRAINTS, tlv(SEQUENCE, Buffer.from('0101ff', 'hex')), true),
    extension(KEY_USAGE, Buffer.from('03020106', 'hex'), true),
  ];
  const certificatePem = signed({ issuer: name, subject: name, publicKey, extensions, signer: privateKey });
  return {
    name,
    certificatePem,
    keyPem: pemOf(privateKey),
    issue: (subject, hosts, validDays) => {
      const own = keyPair();
      const named = hosts.length === 0 ? [] : [extension(ALTERNATIVE_NAMES, alternativeNames(hosts), false)];
      const issued = { issuer: name, subject, publicKey: own.publicKey, extensions: named, signer: privateKey };
      return { name: subject, certificatePem: signed({ ...issued, validDays }), keyPem: pemOf(own.privateKey) };
    },
  };
}

export interface CertificateFiles {
  readonly folder: string;
  readonly certificate: string;
  readonly key: string;
}

/** Writes both into `folder`, over what was there under that name; only the owner may read the key. */
export function writeCertificate(folder: string, { name, certificatePem, keyPem }: Certificate): CertificateFiles {
  const files = { folder, certificate: join(folder, `${name}.crt`), key: join(folder, `${name}.key`) };
  writeFileSync(files.certificate, certificatePem);
  writeFileSync(files.key, keyPem, { mode: 0o600 });
  return files;
}

interface Contents {
  readonly issuer: string;
  readonly subject: string;
  readonly publicKey: KeyObject;
  readonly extensions: readonly Buffer[];
  readonly signer: KeyObject;
  /** from now; below zero: it has expired */
  readonly validDays?: number | undefined;
}

function signed({ issuer, subject, publicKey, extensions, signer, validDays = 30 }: Contents): string {
  const until = Date.now() + validDays * DAY_MS;
  const body = tlv(
    SEQUENCE,
    tlv(0xa0, tlv(0x02, Buffer.from([2]))),
    tlv(0x02, Buffer.from([0x40, (serials += 1) & 0x7f, process.pid & 0x7f])),
    ECDSA_WITH_SHA256,
    distinguished(issuer),
    tlv(SEQUENCE, time(Math.min(Date.now(), until) - DAY_MS), time(until)),
    distinguished(subject),
    publicKey.export({ type: 'spki', format: 'der' }),
    ...(extensions.length === 0 ? [] : [tlv(0xa3, tlv(SEQUENCE, ...extensions))]),
  );
  const signature = tlv(0x03, Buffer.from([0]), sign('sha256', body, signer));
  const der = tlv(SEQUENCE, body, ECDSA_WITH_SHA256, signature);
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
}

function keyPair(): { privateKey: KeyObject; publicKey: KeyObject } {
  return generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
}

function pemOf(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString();
}

function distinguished(name: string): Buffer {
  return tlv(SEQUENCE, tlv(0x31, tlv(SEQUENCE, oid(COMMON_NAME), tlv(0x0c, Buffer.from(name)))));
}

function extension(id: string, value: Buffer, critical: boolean): Buffer {
  return tlv(SEQUENCE, oid(id), ...(critical ? [Buffer.from('0101ff', 'hex')] : []), tlv(0x04, value));
}

function alternativeNames(hosts: readonly string[]): Buffer {
  return tlv(
    SEQUENCE,
    ...hosts.map((host) =>
      isIP(host) === 4 ? tlv(0x87, Buffer.from(host.split('.').map(Number))) : tlv(0x82, Buffer.from(host)),
    ),
  );
}

/** UTCTime, `YYMMDDhhmmssZ`. */
function time(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replaceAll(/[-:T]|\.\d+/g, '');
  return tlv(0x17, Buffer.from(digits.slice(2)));
}

function oid(bytes: string): Buffer {
  return tlv(0x06, Buffer.from(bytes, 'hex'));
}

/** Tag, length, value: the one form that all of DER has. */
function tlv(tag: number, ...parts: readonly Buffer[]): Buffer {
  const value = Buffer.concat(parts);
  const length: number[] = [];
  for (let left = value.length; left > 0; left >>>= 8) length.unshift(left & 0xff);
  const head = value.length < 0x80 ? [tag, value.length] : [tag, 0x80 | length.length, ...length];
  return Buffer.concat([Buffer.from(head), value]);
}
