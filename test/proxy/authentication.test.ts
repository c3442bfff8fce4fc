/** One task: nobody gets in without the right password, and nobody learns which part was wrong. */
import { pbkdf2Sync, randomBytes, createHash, createHmac } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, describe } from 'vitest';
import type { AuthType, UserEntry } from '../../src/config/config.js';
import { connect } from '../../src/postgres/connection.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { errorField } from '../../src/wire/backend.js';
import { startupMessage } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { clientOf, configFor, proxyFor, RawClient, USER } from './support.js';

const clusters = useClusters({ scram: { major: 17, auth: 'scram' }, trust: { major: 15 } });

async function start(authType: AuthType, user: Partial<UserEntry> = {}): Promise<Proxy> {
  const databaseName = await freshDatabase(clusters.scram);
  return proxyFor({
    config: configFor([{ name: 'prod', cluster: clusters.scram, databaseName }], { general: { authType }, user }),
  });
}

/** What PostgreSQL stores of a password. */
function verifierOf(password: string): string {
  const salt = randomBytes(16);
  const salted = pbkdf2Sync(password, salt, 4096, 32, 'sha256');
  const hmac = (text: string): Buffer => createHmac('sha256', salted).update(text).digest();
  const stored = createHash('sha256').update(hmac('Client Key')).digest('base64');
  return `SCRAM-SHA-256$4096:${salt.toString('base64')}$${stored}:${hmac('Server Key').toString('base64')}`;
}

describe.each(['scram', 'md5', 'plain'] as const)('with %s', (authType) => {
  test('the right password lets in, every other one is refused in the same words', async () => {
    const proxy = await start(authType, { passwords: ['first secret', 'second sécret'] });
    for (const password of ['first secret', 'second sécret']) {
      const client = await clientOf(proxy, 'prod', { password });
      expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    }
    const wrong = await clientOf(proxy, 'prod', { password: 'wrong' }).catch((error: unknown) => error);
    const unknown = await clientOf(proxy, 'prod', { user: 'nobody', password: 'wrong' }).catch(
      (error: unknown) => error,
    );
    expect(wrong).toMatchObject({ code: '28P01', message: 'password authentication failed for user "postgres"' });
    expect(unknown).toMatchObject({ code: '28P01', message: 'password authentication failed for user "nobody"' });
    const elsewhere = await clientOf(proxy, 'missing', { password: 'wrong' }).catch((error: unknown) => error);
    expect(elsewhere).toMatchObject({ code: '28P01' });
    const proven = await clientOf(proxy, 'missing', { password: 'first secret' }).catch((error: unknown) => error);
    expect(proven).toMatchObject({ code: '3D000' });
    const admin = await clientOf(proxy, 'admin', { password: 'first secret' }).catch((error: unknown) => error);
    expect(admin).toMatchObject({ code: '28000' });
  });
});

describe.each(['scram', 'plain'] as const)('with %s', (authType) => {
  test('a SCRAM verifier serves in place of a password', async () => {
    const server = { serverPassword: clusters.scram.password };
    const proxy = await start(authType, { passwords: [], passwordHash: verifierOf('only hashed'), ...server });
    const client = await clientOf(proxy, 'prod', { password: 'only hashed' });
    expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    await expect(clientOf(proxy, 'prod', { password: 'wrong' })).rejects.toMatchObject({ code: '28P01' });
  });
});

test('an md5 hash serves in place of a password with md5 and plain, and lets nobody in with scram', async () => {
  const passwordHash = `md5${createHash('md5').update(`only hashed${USER}`).digest('hex')}`;
  const user = { passwords: [], passwordHash, serverPassword: clusters.scram.password };
  for (const authType of ['md5', 'plain'] as const) {
    const proxy = await start(authType, user);
    const client = await clientOf(proxy, 'prod', { password: 'only hashed' });
    expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    for (const password of ['wrong', passwordHash, passwordHash.slice(3)])
      await expect(clientOf(proxy, 'prod', { password })).rejects.toMatchObject({ code: '28P01' });
  }
  const scram = await start('scram', user);
  await expect(clientOf(scram, 'prod', { password: 'only hashed' })).rejects.toMatchObject({ code: '28P01' });
});

test('an unknown user is given the same salt each time, as a known one is', async () => {
  const proxy = await start('scram');
  const saltFor = async (user: string): Promise<string | undefined> => {
    const raw = new RawClient(proxy);
    raw.send(startupMessage({ user, database: 'prod' }));
    await raw.until('R');
    const first = Buffer.from('n,,n=*,r=abcdefghijklmnop');
    const length = Buffer.alloc(4);
    length.writeInt32BE(first.length);
    const body = Buffer.concat([Buffer.from('SCRAM-SHA-256\0'), length, first]);
    const head = Buffer.from([0x70, 0, 0, 0, body.length + 4]);
    raw.send(head, body);
    const [answer] = await raw.until('R');
    return /s=([^,]+)/.exec(answer?.bytes.toString() ?? '')?.[1];
  };
  expect(await saltFor('nobody')).toBe(await saltFor('nobody'));
  expect(await saltFor('postgres')).toBe(await saltFor('postgres'));
  expect(await saltFor('nobody')).not.toBe(await saltFor('somebody'));
});

test('with trust a configured user gets in without a password, an unknown one does not', async () => {
  const proxy = await start('trust');
  expect((await (await clientOf(proxy, 'prod')).query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  await expect(clientOf(proxy, 'prod', { user: 'nobody' })).rejects.toMatchObject({ code: '28P01' });
});

test('a server that refuses the proxy is an error that names the database and no password', async () => {
  const databaseName = await freshDatabase(clusters.scram);
  const config = configFor([{ name: 'prod', cluster: clusters.scram, databaseName }]);
  const wrong = { ...config, databases: config.databases.map((entry) => ({ ...entry, password: 'server secret' })) };
  const proxy = await proxyFor({ config: wrong });
  const error = await clientOf(proxy, 'prod').catch((problem: unknown) => problem);
  expect(error).toMatchObject({ code: '08006', message: expect.stringContaining('"prod"') as string });
  expect(JSON.stringify(error)).not.toContain('secret');
});

test('a server that asks for md5 is logged in to with md5, and refuses a wrong password', async () => {
  const { trust: cluster } = clusters;
  const databaseName = await freshDatabase(cluster);
  await cluster.query(
    'postgres',
    `SET password_encryption = 'md5'; CREATE ROLE from_before LOGIN PASSWORD 'old secret'`,
  );
  // The first line that fits counts (PostgreSQL documentation, 21.1): nobody else's login changes.
  const rules = join(cluster.directory, 'data', 'pg_hba.conf');
  writeFileSync(rules, `host all from_before 127.0.0.1/32 md5\n${readFileSync(rules, 'utf8')}`);
  await cluster.query('postgres', 'SELECT pg_reload_conf()');
  const wrong = { ...cluster.endpoint(databaseName), user: 'from_before', password: 'wrong secret' };
  await until('the server asks for a password', () =>
    connect(wrong).then(
      async (connection) => {
        await connection.end();
        return false;
      },
      () => true,
    ),
  );
  const proxyWith = (password: string): Promise<Proxy> => {
    const config = configFor([{ name: 'prod', cluster, databaseName }], { user: { serverUser: 'from_before' } });
    return proxyFor({ config: { ...config, databases: config.databases.map((entry) => ({ ...entry, password })) } });
  };
  const client = await clientOf(await proxyWith('old secret'), 'prod');
  expect((await client.query<{ u: string }>('SELECT current_user AS u')).rows).toEqual([{ u: 'from_before' }]);
  await expect(clientOf(await proxyWith('wrong secret'), 'prod')).rejects.toMatchObject({
    code: '08006',
    message: expect.stringContaining('password authentication failed for user "from_before"') as unknown,
  });
});

test('SSLRequest and GSSENCRequest are answered N, and the login goes on in clear', async () => {
  const proxy = await start('trust');
  const raw = new RawClient(proxy);
  const answers: Buffer[] = [];
  raw.socket.removeAllListeners('data');
  raw.socket.on('data', (chunk: Buffer) => answers.push(chunk));
  const request = (code: number): Buffer => Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, code]);
  raw.send(request(0x2f));
  await expect.poll(() => Buffer.concat(answers).toString()).toBe('N');
  raw.send(request(0x30));
  await expect.poll(() => Buffer.concat(answers).toString()).toBe('NN');
  raw.send(startupMessage({ user: 'postgres', database: 'prod' }));
  await expect.poll(() => Buffer.concat(answers).toString('latin1')).toMatch(/^NNR[^]*Z\0\0\0\x05I$/);
});

test('the replication protocol is refused with a reason', async () => {
  const proxy = await start('trust');
  const raw = new RawClient(proxy);
  raw.send(startupMessage({ user: 'postgres', database: 'prod', replication: 'database' }));
  const [error] = await raw.until('E');
  expect(error && errorField(error.bytes, 0, error.bytes.length, 'C')).toBe('0A000');
});

test('who does not finish the login in time is told and closed', async () => {
  const databaseName = await freshDatabase(clusters.trust);
  const general = { clientLoginTimeoutMs: 50 };
  const proxy = await proxyFor({
    config: configFor([{ name: 'prod', cluster: clusters.trust, databaseName }], { general }),
  });
  const raw = new RawClient(proxy);
  const [error] = await raw.until('E');
  expect(error && errorField(error.bytes, 0, error.bytes.length, 'C')).toBe('57014');
  await expect.poll(() => raw.closed).toBe(true);
});
