/** One task: clients reach the proxy by TLS in every way PostgreSQL's own drivers ask for it, and nobody slips plain text in between. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectBare, type Socket } from 'node:net';
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type pg from 'pg';
import { expect, test } from 'vitest';
import type { TlsConfig } from '../../src/config/tls.js';
import { freePort } from '../../src/dev/ports.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { SILENT } from '../../src/proxy/logger.js';
import { serve } from '../../src/serve.js';
import { cancelRequest, query, SSL_REQUEST, startupMessage } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { writeCertificate } from '../support/certificates.js';
import { clientOf, configFor, endLater, proxyFor, statementsSleep, USER, type Overrides } from './support.js';
import { authority, certified, fileOf, offered, stranger, tlsOf } from './tls-support.js';

const clusters = useClusters({ main: { major: 18 } });
let databaseName = '';

async function start(tls: TlsConfig, overrides: Overrides = {}): Promise<Proxy> {
  databaseName ||= await freshDatabase(clusters.main);
  return proxyFor({
    config: configFor([{ name: 'prod', cluster: clusters.main, databaseName }], { tls, ...overrides }),
  });
}

const VERIFIED = { ca: authority.certificatePem };
const UNVERIFIED = { rejectUnauthorized: false };

async function answer(proxy: Proxy, options: pg.ClientConfig): Promise<unknown> {
  const client = await clientOf(proxy, 'prod', options);
  const { rows } = await client.query<{ one: number }>('SELECT 1 AS one');
  return rows[0]?.one;
}

function encrypted(proxy: Proxy): boolean[] {
  return proxy.clients().map(({ tls }) => tls);
}

test('a driver connects with each sslmode, and verifies whom it meets', async () => {
  const proxy = await start(offered());
  const port = proxy.address.port;
  expect(await answer(proxy, {})).toBe(1);
  expect(await answer(proxy, { ssl: UNVERIFIED })).toBe(1);
  expect(await answer(proxy, { ssl: VERIFIED })).toBe(1);
  expect(await answer(proxy, { ssl: VERIFIED, host: 'localhost', port })).toBe(1);
  expect(await answer(proxy, { ssl: VERIFIED, sslnegotiation: 'direct' })).toBe(1);
  expect(encrypted(proxy)).toEqual([false, true, true, true, true]);
  await expect(answer(proxy, { ssl: { ca: stranger.certificatePem } })).rejects.toThrow(/certificate/);
  const elsewhere = { ...VERIFIED, servername: 'elsewhere.example' };
  await expect(answer(proxy, { ssl: elsewhere })).rejects.toThrow(/does not match certificate/);
});

test('large results and large statements pass, whole and in order', async () => {
  const proxy = await start(offered());
  const client = await clientOf(proxy, 'prod', { ssl: VERIFIED });
  const text = 'x'.repeat(3_000_000);
  const { rows } = await client.query<{ n: number; echo: string }>(
    `SELECT n, CASE n WHEN 20000 THEN $1::text ELSE repeat('y', 200) END AS echo FROM generate_series(1, 20000) AS n`,
    [text],
  );
  expect(rows.map(({ n }) => n)).toEqual(Array.from({ length: 20_000 }, (_, at) => at + 1));
  expect(rows.at(-1)?.echo).toBe(text);
});

test('without a certificate the answer is N, and a direct handshake is no startup packet', async () => {
  const proxy = await start(tlsOf({}));
  const plain = await bare(proxy, SSL_REQUEST);
  expect(plain.toString()).toBe('N');
  await expect(answer(proxy, { ssl: UNVERIFIED })).rejects.toThrow('does not support SSL');
  await expect(answer(proxy, { ssl: UNVERIFIED, sslnegotiation: 'direct' })).rejects.toThrow();
});

test('plain text behind the request for TLS is refused before anything is encrypted', async () => {
  const proxy = await start(offered());
  const behind = Buffer.concat([SSL_REQUEST, startupMessage({ user: USER, database: 'prod' }), query('SELECT 1')]);
  const said = (await bare(proxy, behind)).toString();
  expect(said).toContain('received unencrypted data after SSL request');
  expect(said).toContain('08P01');
  expect(said).not.toMatch(/^S/);
});

test('a direct handshake that does not name the protocol is closed, and TLS inside of TLS is refused', async () => {
  const proxy = await start(offered());
  const unnamed = await secure(proxy, {});
  expect(await closed(unnamed)).toBe('');
  const within = await secure(proxy, { ALPNProtocols: ['postgresql'] });
  within.write(SSL_REQUEST);
  expect(await closed(within)).toContain('a request for TLS inside of TLS');
});

test('tls_client_required lets nobody in without, but for a cancel request, which libpq sends in plain text', async () => {
  const proxy = await start(offered({ tls_client_required: true }));
  await expect(answer(proxy, {})).rejects.toMatchObject({
    code: '28000',
    message: expect.stringMatching(/no encryption/) as unknown,
  });
  const client = await clientOf(proxy, 'prod', { ssl: VERIFIED });
  for (const how of ['plain', 'encrypted'] as const) {
    const slow = client.query('SELECT pg_sleep(30)').catch((error: unknown) => error);
    await statementsSleep(clusters.main, databaseName);
    const { processID, secretKey } = client as unknown as { processID: number; secretKey: number };
    const secret = Buffer.alloc(4);
    secret.writeInt32BE(secretKey);
    const request = cancelRequest(processID, secret);
    if (how === 'plain') await bare(proxy, request);
    else {
      const socket = await secure(proxy, { ALPNProtocols: ['postgresql'] });
      socket.write(request);
      await closed(socket);
    }
    expect(await slow, how).toMatchObject({ code: '57014' });
  }
});

test('a client shows a certificate where that is asked for, and is told what is wrong with it', async () => {
  const asked = offered({ tls_client_ca_certificate: fileOf('authority').certificate });
  const proxy = await start(asked);
  const shown = ({ certificatePem, keyPem }: typeof authority | typeof certified.client): Promise<unknown> =>
    answer(proxy, { ssl: { ...VERIFIED, cert: certificatePem, key: keyPem } });
  expect(await shown(certified.client)).toBe(1);
  const invalid = { code: '28000', message: expect.stringMatching(/certificate is not accepted/) as unknown };
  await expect(shown(certified.strange)).rejects.toMatchObject(invalid);
  await expect(shown(certified.expired)).rejects.toMatchObject({
    ...invalid,
    message: expect.stringMatching(/CERT_HAS_EXPIRED/) as unknown,
  });
  const missing = { code: '28000', message: expect.stringMatching(/requires a valid client certificate/) as unknown };
  await expect(answer(proxy, { ssl: VERIFIED })).rejects.toMatchObject(missing);
  await expect(answer(proxy, {})).rejects.toMatchObject(missing);
  const lenient = await start(asked, { user: { clientCertificateRequired: false } });
  expect(await answer(lenient, { ssl: VERIFIED })).toBe(1);
  expect(await answer(lenient, {})).toBe(1);
});

test('RELOAD shows renewed files to new clients, keeps those that are connected, and refuses files that do not fit', async () => {
  const { admin, client, files } = await serveFiles();
  const session = await client();
  const nodes = await admin.query<{ state: string; address: string }>('SHOW NODES');
  expect(nodes.rows.map(({ state }) => state)).toEqual(['serving', 'serving']);
  const { certificate, key } = writeCertificate(files, stranger.issue('shown', ['127.0.0.1']));
  await admin.query('RELOAD');
  await expect(client()).rejects.toThrow(/certificate/);
  const renewed = await client({ ca: stranger.certificatePem });
  writeFileSync(key, certified.proxy.keyPem);
  const refused = await admin.query('RELOAD').catch(String);
  expect(refused).toContain(`"tls_private_key": "${key}" is not the key of the certificate "${certificate}"`);
  expect(await client({ ca: stranger.certificatePem })).toBeDefined();
  for (const each of [session, renewed]) expect((await each.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  const { rows } = await admin.query('SHOW CONFIG');
  expect(rows).toContainEqual({ name: 'tls_private_key', value: key });
  expect(JSON.stringify(rows)).not.toContain('PRIVATE KEY-');
});

test('a handshake that never ends is cut off with the login, and no other client waits for it', async () => {
  const proxy = await start(offered(), { general: { clientLoginTimeoutMs: 300 } });
  const silent = connectBare(proxy.address.port, proxy.address.host);
  silent.write(SSL_REQUEST);
  const begun = connectBare(proxy.address.port, proxy.address.host);
  begun.write(Buffer.from([0x16, 3, 1, 1, 0, 1, 0, 0]));
  const ends = [closed(silent), closed(begun)];
  expect(await answer(proxy, { ssl: VERIFIED })).toBe(1);
  expect(await Promise.all(ends)).toEqual(['S', '']);
});

/** The whole program, which lets nobody in without TLS, as the one node of its own configuration. */
async function serveFiles(): Promise<{
  readonly admin: pg.Client;
  readonly files: string;
  readonly client: (ssl?: pg.ClientConfig['ssl']) => Promise<pg.Client>;
}> {
  databaseName ||= await freshDatabase(clusters.main);
  const files = mkdtempSync(join(tmpdir(), 'cutover-tls-serve-'));
  const shown = writeCertificate(files, { ...certified.proxy, name: 'shown' });
  const port = await freePort();
  const target = `host = "127.0.0.1"\nport = ${clusters.main.port.toString()}\ndatabase_name = "${databaseName}"\n`;
  const texts = {
    config: `[general]\nhost = "127.0.0.1"\nport = ${port.toString()}\ntls_client_required = true
      tls_certificate = "${shown.certificate}"\ntls_private_key = "${shown.key}"\n[admin]\npassword = "admin secret"
      [[nodes]]\nname = "a"\nhost = "127.0.0.1"\nport = ${port.toString()}\n[[databases]]\nname = "prod"\n${target}
      [[databases]]\nname = "prod_new"\n${target}`,
    users: `[[users]]\nname = "postgres"\nall_databases = true\nschema_admin = true\npassword = "client secret"
      server_password = "${clusters.main.password}"\n`,
  };
  const paths = { config: join(files, 'pgdog.toml'), users: join(files, 'users.toml') };
  for (const kind of ['config', 'users'] as const) writeFileSync(paths[kind], texts[kind]);
  const served = await serve({ files: paths, worker: false, logger: SILENT });
  endLater(async () => {
    await served.close(0);
    rmSync(files, { recursive: true, force: true });
  });
  const { proxy } = served;
  const admin = await clientOf(proxy, 'admin', { user: 'admin', password: 'admin secret', ssl: VERIFIED });
  return { admin, files, client: (ssl = VERIFIED) => clientOf(proxy, 'prod', { ssl }) };
}

/** What the proxy says until it closes, or until its first answer to an SSLRequest alone. */
function bare(proxy: Proxy, bytes: Buffer): Promise<Buffer> {
  const socket = connectBare(proxy.address.port, proxy.address.host);
  socket.write(bytes);
  return new Promise((resolve, reject) => {
    const heard: Buffer[] = [];
    socket.on('error', reject);
    socket.on('data', (chunk: Buffer) => {
      heard.push(chunk);
      if (bytes === SSL_REQUEST) socket.destroy();
    });
    socket.on('close', () => {
      resolve(Buffer.concat(heard));
    });
  });
}

function secure(proxy: Proxy, options: ConnectionOptions): Promise<TLSSocket> {
  const { host, port } = proxy.address;
  const socket = connectTls({ host, port, ...UNVERIFIED, ...options });
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.once('secureConnect', () => {
      socket.on('error', () => undefined);
      resolve(socket);
    });
  });
}

/** All that comes until the other side closes. */
function closed(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    let heard = '';
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => (heard += chunk.toString('latin1')));
    socket.on('close', () => {
      resolve(heard);
    });
  });
}
