/** One task: a user that no file knows gets in by the password the server knows, and by no other. */
import { readFileSync, writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import type pg from 'pg';
import { expect, test } from 'vitest';
import type { Config, DatabaseEntry, GeneralConfig, PassthroughAuth } from '../../src/config/config.js';
import { swapNames } from '../../src/config/swap.js';
import { Passthrough } from '../../src/proxy/passthrough.js';
import { ProvenCredentials, USERS_MAX } from '../../src/proxy/proven-credentials.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { startupMessage } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, proxyFor, RawClient, USER } from './support.js';
import { authority, offered } from './tls-support.js';

const clusters = useClusters({ source: { major: 17, auth: 'scram' }, destination: { major: 18, auth: 'scram' } });
const lines: string[] = [];
const line = (fields: object, message: string): void => void lines.push(JSON.stringify(fields) + message);
const logger = { info: line, warn: line, error: line };
let roles = 0;

/** A role that both servers know. */
async function role(password: string): Promise<string> {
  roles += 1;
  const name = `guest_${roles.toString()}`;
  for (const cluster of Object.values(clusters))
    await cluster.query('postgres', `CREATE ROLE ${name} LOGIN PASSWORD '${password}'`);
  return name;
}

interface Overrides {
  readonly general?: Partial<GeneralConfig>;
  readonly database?: Partial<DatabaseEntry>;
  readonly tls?: Config['tls'];
}

async function configOf(passthroughAuth: PassthroughAuth, { general, database, tls }: Overrides = {}): Promise<Config> {
  const databaseName = await freshDatabase(clusters.source);
  await clusters.destination.createDatabase(databaseName);
  const config = configFor(
    [
      { name: 'prod', cluster: clusters.source, databaseName },
      { name: 'prod_new', cluster: clusters.destination, databaseName },
    ],
    { general: { authType: 'scram', passthroughAuth, ...general }, user: { serverPassword: clusters.source.password } },
  );
  // What users bring themselves is not to be overruled.
  const databases = config.databases.map(({ password: _password, ...entry }) => ({ ...entry, ...database }));
  return { ...config, databases, ...(tls && { tls }) };
}

async function whoIs(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ who: string }>(
    `SELECT current_user || ' on ' || current_setting('server_version_num')::int / 10000 AS who`,
  );
  return rows[0]?.who ?? '';
}

async function loggedIn(proxy: Proxy, user: string, password: string, more: pg.ClientConfig = {}): Promise<string> {
  return whoIs(await clientOf(proxy, 'prod', { user, password, ...more }));
}

const refused = {
  code: '28P01',
  message: expect.stringMatching(/^password authentication failed for user/) as unknown,
};

test('the right password lets in and is used for the pools, and every other one is refused in the same words', async () => {
  const user = await role('guest secret');
  const proxy = await proxyFor({ config: await configOf('enabled_plain'), logger });
  await expect(loggedIn(proxy, user, 'wrong secret')).rejects.toMatchObject(refused);
  await expect(loggedIn(proxy, user, '')).rejects.toMatchObject(refused);
  await expect(loggedIn(proxy, 'nobody', 'guest secret')).rejects.toMatchObject(refused);
  const elsewhere = clientOf(proxy, 'missing', { user, password: 'guest secret' });
  await expect(elsewhere).rejects.toMatchObject(refused);
  const many = Array.from({ length: 12 }, () => loggedIn(proxy, user, 'guest secret'));
  expect(new Set(await Promise.all(many))).toEqual(new Set([`${user} on 17`]));
  expect(await loggedIn(proxy, USER, 'client secret')).toBe(`${USER} on 17`);
  await expect(loggedIn(proxy, USER, 'guest secret')).rejects.toMatchObject(refused);
  // The admin database is not a server's.
  const admin = clientOf(proxy, 'admin', { user, password: 'guest secret' });
  await expect(admin).rejects.toMatchObject(refused);
  expect(JSON.stringify([lines, proxy.pools(), proxy.servers(), proxy.clients(), proxy.stats()])).not.toContain(
    'secret',
  );
  expect(lines.length).toBeGreaterThan(0);
});

test('another password than the remembered one is asked about only with allow_change, and takes its place', async () => {
  for (const [mode, changes] of [
    ['enabled_plain', false],
    ['enabled_plain_allow_change', true],
  ] as const) {
    const user = await role('first secret');
    const proxy = await proxyFor({ config: await configOf(mode) });
    const before = await clientOf(proxy, 'prod', { user, password: 'first secret' });
    await clusters.source.query('postgres', `ALTER ROLE ${user} PASSWORD 'second secret'`);
    const second = loggedIn(proxy, user, 'second secret');
    if (changes) expect(await second).toBe(`${user} on 17`);
    else await expect(second).rejects.toMatchObject(refused);
    const first = loggedIn(proxy, user, 'first secret');
    if (changes) await expect(first).rejects.toMatchObject(refused);
    // On the connections that are open still; a new one could not be opened.
    else expect(await first).toBe(`${user} on 17`);
    expect(await whoIs(before)).toBe(`${user} on 17`);
  }
});

test('without *_plain nobody is asked for a password in clear but over TLS', async () => {
  const user = await role('guest secret');
  const proxy = await proxyFor({ config: await configOf('enabled', { tls: offered() }) });
  for (const name of [user, USER]) {
    const raw = new RawClient(proxy);
    raw.send(startupMessage({ user: name, database: 'prod' }));
    const [question] = await raw.until('R');
    expect(question?.bytes.toString()).toContain('SCRAM-SHA-256');
  }
  await expect(loggedIn(proxy, user, 'guest secret')).rejects.toMatchObject(refused);
  const ssl = { ca: authority.certificatePem };
  expect(await loggedIn(proxy, user, 'guest secret', { ssl })).toBe(`${user} on 17`);
  expect(await loggedIn(proxy, USER, 'client secret', { ssl })).toBe(`${USER} on 17`);
});

test('what the pools log in with proves nothing about a client, and neither does a server that asks for no password', async () => {
  const user = await role('guest secret');
  const { password } = clusters.source;
  const shared = await proxyFor({ config: await configOf('enabled_plain', { database: { user: USER, password } }) });
  await expect(loggedIn(shared, user, password)).rejects.toMatchObject(refused);
  expect(await loggedIn(shared, user, 'guest secret')).toBe(`${USER} on 17`);
  const open = await role('never asked for');
  const rules = join(clusters.source.directory, 'data', 'pg_hba.conf');
  writeFileSync(rules, `host all ${open} 127.0.0.1/32 trust\n${readFileSync(rules, 'utf8')}`);
  await clusters.source.query('postgres', 'SELECT pg_reload_conf()');
  const proxy = await proxyFor({ config: await configOf('enabled_plain') });
  await until('the server lets everybody in', async () => {
    const { code } = (await loggedIn(proxy, open, 'any').catch((error: unknown) => error)) as { code: string };
    return code === '28000';
  });
});

test('a guest stays through a cutover and the way back, and its pools are filled ahead', async () => {
  const user = await role('guest secret');
  const config = await configOf('enabled_plain');
  const proxy = await proxyFor({ config });
  const client = await clientOf(proxy, 'prod', { user, password: 'guest secret' });
  expect(await whoIs(client)).toBe(`${user} on 17`);
  await proxy.warm('prod_new', 'prod', 5_000);
  const ahead = proxy.pools().find((pool) => pool.user === user && pool.database === 'prod_new');
  expect(ahead).toMatchObject({ serversIdle: 1 });
  // To be warm there is not to be let in.
  const there = clientOf(proxy, 'prod_new', { user, password: 'wrong secret' });
  await expect(there).rejects.toMatchObject(refused);
  for (const major of ['18', '17']) {
    const gate = proxy.gate('prod');
    gate.close('cutover');
    expect(await gate.drained(5_000)).toMatchObject({ drained: true });
    const held = whoIs(client);
    proxy.apply(swapNames(proxy.config, 'prod', 'prod_new'));
    gate.open('cutover');
    expect(await held).toBe(`${user} on ${major}`);
    expect(await loggedIn(proxy, user, 'guest secret')).toBe(`${user} on ${major}`);
  }
});

test('a guest is forgotten when it has been away for idle_timeout, and nobody is while there is room for no more', async () => {
  const user = await role('guest secret');
  const general = { idleTimeoutMs: 50 };
  const proxy = await proxyFor({ config: await configOf('enabled_plain', { general }) });
  const client = await clientOf(proxy, 'prod', { user, password: 'guest secret' });
  const pools = (): number => proxy.pools().filter((pool) => pool.user === user).length;
  await new Promise((resolve) => setTimeout(resolve, 700));
  expect(await whoIs(client)).toBe(`${user} on 17`);
  await client.end();
  await until('its pool is gone', () => pools() === 0);

  const proven = new ProvenCredentials(() => undefined);
  const config = await configOf('enabled_plain');
  proven.apply(config);
  const sockets: Socket[] = [];
  for (let count = 0; count < USERS_MAX; count += 1) {
    const name = `user_${count.toString()}`;
    proven.remember(name, 'prod', 'x');
    const socket = new Socket();
    sockets.push(socket);
    proven.hold(name, 'prod', socket);
  }
  expect(() => {
    proven.remember('one_more', 'prod', 'x');
  }).toThrow(/cannot be let in by passthrough_auth now/);
  // The same password again needs no room, and no server.
  expect(await new Passthrough(proven).accepted(config, 'user_7', 'prod', 'x')).toBe(true);
  const [first] = sockets;
  for (const socket of sockets.reverse()) socket.destroy();
  await new Promise((resolve) => first?.once('close', resolve));
  proven.remember('one_more', 'prod', 'x');
  expect(proven.passwordOf('user_7', 'prod')).toBeNull();
  proven.apply({ ...config, general: { ...config.general, passthroughAuth: 'disabled' } });
  expect(proven.passwordOf('one_more', 'prod')).toBeNull();
});
