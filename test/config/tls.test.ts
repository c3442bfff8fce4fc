/** One task: the TLS keys name files that fit, or the file is refused with a sentence that holds nothing secret. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import type { Config } from '../../src/config/config.js';
import { fingerprint } from '../../src/config/fingerprint.js';
import { parseConfig } from '../../src/config/load.js';
import { swapNames } from '../../src/config/swap.js';
import { CutoverError } from '../../src/errors/errors.js';
import { makeAuthority, writeCertificate } from '../support/certificates.js';

const folder = mkdtempSync(join(tmpdir(), 'cutover-tls-config-'));
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const authority = makeAuthority('root');
const { certificate: root } = writeCertificate(folder, authority);
const one = writeCertificate(folder, authority.issue('one', ['one']));
const other = writeCertificate(folder, authority.issue('other', ['other']));
const locked = join(folder, 'locked.key');
const secret = 'MIIsecretMII';
writeFileSync(locked, `-----BEGIN ENCRYPTED PRIVATE KEY-----\n${secret}\n-----END ENCRYPTED PRIVATE KEY-----\n`);

function load(general: Record<string, string | boolean>, user = ''): Config {
  const lines = Object.entries(general).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`);
  const databases = '[[databases]]\nname = "a"\nhost = "h"\n[[databases]]\nname = "b"\nhost = "i"\n';
  const config = { file: 'pgdog.toml', text: `[general]\n${lines.join('')}${databases}` };
  const users = { file: 'users.toml', text: `[[users]]\nname = "u"\nall_databases = true\n${user}` };
  return parseConfig(config, users, { environment: {} });
}

function refusal(general: Record<string, string | boolean>, user = ''): string {
  try {
    load(general, user);
  } catch (error) {
    if (error instanceof CutoverError && error.code === 'configuration_invalid') return error.message;
    throw error;
  }
  return 'loaded';
}

const pair = { tls_certificate: one.certificate, tls_private_key: one.key };

test.each([
  ['a certificate alone', { tls_certificate: one.certificate }, '2: "tls_certificate" needs "tls_private_key"'],
  ['a key alone', { tls_private_key: one.key }, '2: "tls_private_key" needs "tls_certificate"'],
  [
    'no file',
    { ...pair, tls_private_key: 'nowhere.key' },
    '3: "tls_private_key": the file "nowhere.key" cannot be read (ENOENT)',
  ],
  [
    'no certificate',
    { ...pair, tls_certificate: one.key },
    `2: "tls_certificate": "${one.key}" is not a certificate in PEM`,
  ],
  ['no key', { ...pair, tls_private_key: root }, `3: "tls_private_key": "${root}" is not a private key in PEM`],
  [
    'a passphrase',
    { ...pair, tls_private_key: locked },
    `"${locked}" is not a private key in PEM without a passphrase`,
  ],
  ["another's key", { ...pair, tls_private_key: other.key }, `"${other.key}" is not the key of the certificate`],
  ['half of its own', { tls_server_certificate: one.certificate }, 'needs "tls_server_private_key"'],
  ['no authority', { tls_verify: 'verify_ca', tls_server_ca_certificate: one.key }, 'is not a certificate in PEM'],
  ['asked of nobody', { tls_client_ca_certificate: root }, 'needs "tls_certificate" and "tls_private_key"'],
  ['required of nobody', { tls_client_required: true }, '2: "tls_client_required" needs'],
  ['no such rule', { tls_verify: 'verify-full' }, 'did you mean "verify_full"?'],
])('%s is refused', (_, general, problem) => {
  const said = refusal(general);
  expect(said).toContain(problem);
  expect(said).not.toContain(secret);
});

test('pass-through over TLS needs a certificate, and identity somebody who issues those of clients', () => {
  const warned = (value: string, keys = {}): string => load({ ...keys, passthrough_auth: value }).warnings.join();
  for (const value of ['enabled', 'enabled_allow_change']) {
    expect(warned(value)).toContain('"passthrough_auth" has no effect without "tls_certificate"');
    expect(warned(value, pair)).not.toContain('passthrough_auth');
  }
  expect(warned('enabled_plain')).not.toContain('passthrough_auth');
  const identity = 'identity = "app"\n';
  expect(refusal(pair, identity)).toContain('users.toml:4: "identity" needs "tls_client_ca_certificate"');
  const [user] = load({ ...pair, tls_client_ca_certificate: root }, identity).users;
  expect(user).toMatchObject({ identity: 'app' });
});

test('a user cannot be asked for a certificate where nobody is', () => {
  const needed = 'tls_client_certificate_required = true\n';
  expect(refusal(pair, needed)).toContain('users.toml:4: "tls_client_certificate_required" needs');
  const config = load({ ...pair, tls_client_ca_certificate: root }, needed);
  expect(config.users[0]).toMatchObject({ clientCertificateRequired: true });
});

test('an authority that is not used is a warning', () => {
  const { warnings } = load({ tls_server_ca_certificate: root });
  expect(warnings.join()).toContain('"tls_server_ca_certificate" has no effect: tls_verify = "prefer"');
});

test('nodes compare what TLS forbids and by whom servers are verified, not the files of each machine', () => {
  const strict = { ...pair, tls_verify: 'verify_ca', tls_server_ca_certificate: root };
  const copied = writeCertificate(folder, { ...authority, name: 'copied' }).certificate;
  const strangers = writeCertificate(folder, makeAuthority('strangers')).certificate;
  const same = fingerprint(load(strict));
  const elsewhere = { tls_certificate: other.certificate, tls_private_key: other.key };
  expect(fingerprint(load({ ...strict, ...elsewhere, tls_server_ca_certificate: copied }))).toBe(same);
  const own = { tls_server_certificate: one.certificate, tls_server_private_key: one.key };
  expect(fingerprint(load({ ...strict, ...own }))).toBe(same);
  for (const change of [
    { tls_verify: 'verify_full' },
    { tls_client_required: true },
    { tls_client_ca_certificate: root },
    { tls_server_ca_certificate: strangers },
  ])
    expect(fingerprint(load({ ...strict, ...change }))).not.toBe(same);
});

test('a swap keeps what was read', () => {
  const config = load(pair);
  expect(swapNames(config, 'a', 'b').tls).toBe(config.tls);
});
