/**
 * One task: the TLS keys of `[general]`: read the files they name, and refuse what would protect nothing or could not work.
 *
 * The files are read with the configuration, so a RELOAD takes up renewed ones, and one that does not fit changes nothing.
 */
import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { messageOf, type CutoverError } from '../errors/errors.js';
import type { GeneralKeys } from './schema.js';

export type TlsVerify = 'prefer' | 'disabled' | 'verify_ca' | 'verify_full';

/** A file as it was when the configuration was loaded. */
export interface TlsFile {
  readonly path: string;
  /** PEM; may be a private key: held in memory only, never shown */
  readonly pem: string;
}

export interface KeyPair {
  readonly certificate: TlsFile;
  readonly privateKey: TlsFile;
}

/** What clients are offered. */
export interface ClientTls {
  readonly pair: KeyPair;
  /** who comes without TLS is refused */
  readonly required: boolean;
  /** issues the certificates of clients; absent: they are not asked for any */
  readonly authority?: TlsFile;
}

/** How servers are reached: by the proxy's pools, by cancel requests and by the engine. */
export interface ServerTls {
  readonly verify: TlsVerify;
  /** absent: the authorities that Node knows */
  readonly authority?: TlsFile;
  /** shown to servers that ask for a certificate */
  readonly pair?: KeyPair;
}

export interface TlsConfig {
  /** null: there is no certificate, so clients come in plain text */
  readonly clients: ClientTls | null;
  readonly servers: ServerTls;
}

/** Plain text on both sides. */
export const NO_TLS: TlsConfig = { clients: null, servers: { verify: 'disabled' } };

/** TLS where the other side offers it, whoever that is. */
export const PREFER_TLS: ServerTls = { verify: 'prefer' };

type FileKey =
  | 'tls_certificate'
  | 'tls_private_key'
  | 'tls_client_ca_certificate'
  | 'tls_server_ca_certificate'
  | 'tls_server_certificate'
  | 'tls_server_private_key';
type Invalid = (key: FileKey | 'tls_client_required', problem: string) => CutoverError;

/**
 * Reads and checks what the keys name.
 *
 * @param invalid the error for a key, whose text names the file and never what is in it
 * @param warn for what has no effect
 * @throws CutoverError as `invalid` makes it
 */
export function tlsConfig(keys: GeneralKeys, invalid: Invalid, warn: (sentence: string) => void): TlsConfig {
  const read = (key: FileKey): TlsFile | undefined => readKey(keys, key, invalid);
  const pair = keyPair(read, 'tls_certificate', 'tls_private_key', invalid);
  const clientAuthority = authority(read, 'tls_client_ca_certificate', invalid);
  const required = keys.tls_client_required ?? false;
  const without = 'needs "tls_certificate" and "tls_private_key"';
  if (pair === undefined && required) throw invalid('tls_client_required', `"tls_client_required" ${without}`);
  if (pair === undefined && clientAuthority !== undefined)
    throw invalid('tls_client_ca_certificate', `"tls_client_ca_certificate" ${without}`);
  const serverAuthority = authority(read, 'tls_server_ca_certificate', invalid);
  const verify = keys.tls_verify ?? 'prefer';
  if (serverAuthority !== undefined && (verify === 'prefer' || verify === 'disabled'))
    warn(`"tls_server_ca_certificate" has no effect: tls_verify = "${verify}" verifies no server`);
  const serverPair = keyPair(read, 'tls_server_certificate', 'tls_server_private_key', invalid);
  return {
    clients: pair === undefined ? null : { pair, required, ...(clientAuthority && { authority: clientAuthority }) },
    servers: {
      verify,
      ...(serverAuthority && { authority: serverAuthority }),
      ...(serverPair && { pair: serverPair }),
    },
  };
}

function readKey(keys: GeneralKeys, key: FileKey, invalid: Invalid): TlsFile | undefined {
  const path = keys[key];
  if (typeof path !== 'string') return undefined;
  try {
    return { path, pem: readFileSync(path, 'utf8') };
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? messageOf(error);
    throw invalid(key, `"${key}": the file "${path}" cannot be read (${reason})`);
  }
}

function keyPair(
  read: (key: FileKey) => TlsFile | undefined,
  certificateKey: FileKey,
  privateKeyKey: FileKey,
  invalid: Invalid,
): KeyPair | undefined {
  const [certificate, privateKey] = [read(certificateKey), read(privateKeyKey)];
  if (certificate === undefined && privateKey === undefined) return undefined;
  if (privateKey === undefined) throw invalid(certificateKey, `"${certificateKey}" needs "${privateKeyKey}"`);
  if (certificate === undefined) throw invalid(privateKeyKey, `"${privateKeyKey}" needs "${certificateKey}"`);
  const fails = (parts: { cert?: string; key?: string }): boolean => !isContext(parts);
  if (fails({ cert: certificate.pem }))
    throw invalid(certificateKey, `"${certificateKey}": "${certificate.path}" is not a certificate in PEM`);
  if (fails({ key: privateKey.pem }))
    throw invalid(
      privateKeyKey,
      `"${privateKeyKey}": "${privateKey.path}" is not a private key in PEM without a passphrase`,
    );
  if (fails({ cert: certificate.pem, key: privateKey.pem }))
    throw invalid(
      privateKeyKey,
      `"${privateKeyKey}": "${privateKey.path}" is not the key of the certificate "${certificate.path}"`,
    );
  return { certificate, privateKey };
}

function authority(read: (key: FileKey) => TlsFile | undefined, key: FileKey, invalid: Invalid): TlsFile | undefined {
  const file = read(key);
  // OpenSSL takes a file without any certificate for an empty list, by which nobody could be verified.
  if (file !== undefined && (!file.pem.includes('-----BEGIN CERTIFICATE-----') || !isContext({ ca: file.pem })))
    throw invalid(key, `"${key}": "${file.path}" is not a certificate in PEM`);
  return file;
}

function isContext(parts: { cert?: string; key?: string; ca?: string }): boolean {
  try {
    createSecureContext(parts);
    return true;
  } catch {
    return false;
  }
}
