/** One task: certificates on disk and configurations that use them, for the tests of TLS. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { tlsConfig, type TlsConfig } from '../../src/config/tls.js';
import { makeAuthority, writeCertificate, type CertificateFiles } from '../support/certificates.js';

/** Whom the proxy and the servers are certified by. */
export const authority = makeAuthority('authority');
/** Somebody else. */
export const stranger = makeAuthority('stranger');

const folder = mkdtempSync(join(tmpdir(), 'cutover-tls-'));
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

export const certified = {
  proxy: authority.issue('proxy', ['localhost', '127.0.0.1']),
  client: authority.issue('client', []),
  expired: authority.issue('expired', [], -1),
  strange: stranger.issue('strange', []),
};

const written: Record<string, CertificateFiles> = {};
for (const certificate of [authority, stranger, ...Object.values(certified)])
  written[certificate.name] = writeCertificate(folder, certificate);

export function fileOf(name: string): CertificateFiles {
  const files = written[name];
  if (files === undefined) throw new Error(`nothing is certified as ${name}`);
  return files;
}

/** As the keys of [general] would make it. */
export function tlsOf(keys: Parameters<typeof tlsConfig>[0]): TlsConfig {
  return tlsConfig(
    keys,
    (_key, problem) => {
      throw new Error(problem);
    },
    () => undefined,
  );
}

/** The proxy shows its certificate; with `keys` on top. */
export function offered(keys: Parameters<typeof tlsConfig>[0] = {}): TlsConfig {
  const { certificate, key } = fileOf('proxy');
  return tlsOf({ tls_certificate: certificate, tls_private_key: key, ...keys });
}
