/** One task: servers are reached by TLS and verified as tls_verify says, by the pools, by cancel requests and by the engine alike. */
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { connect as connectTls, TLSSocket } from 'node:tls';
import { beforeAll, expect, test } from 'vitest';
import type { TlsVerify } from '../../src/config/tls.js';
import { swapNames } from '../../src/config/swap.js';
import { Connections } from '../../src/postgres/connections.js';
import { withConnection } from '../../src/postgres/connection.js';
import { dumpSchema } from '../../src/postgres/dump/dump.js';
import { conninfoOf, engineEndpoint, type Endpoint } from '../../src/postgres/endpoint.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { SSL_REQUEST } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { setTls } from '../support/tls-cluster.js';
import { clientOf, configFor, endLater, proxyFor, statementsSleep } from './support.js';
import { authority, fileOf, tlsOf } from './tls-support.js';

const clusters = useClusters({ main: { major: 17, auth: 'scram' } });
let [first, second] = ['', ''];

beforeAll(async () => {
  first = await freshDatabase(clusters.main);
  second = await freshDatabase(clusters.main);
  await setTls(clusters.main, authority.issue('server', ['localhost']), authority);
});

/** The server's certificate is for `localhost` only, so by its address it is not who it should be. */
type Host = 'localhost' | '127.0.0.1';

function keysOf(verify: TlsVerify, trusted = 'authority'): Parameters<typeof tlsOf>[0] {
  return { tls_verify: verify, tls_server_ca_certificate: fileOf(trusted).certificate };
}

async function start(
  keys: Parameters<typeof tlsOf>[0],
  host: Host = 'localhost',
  port = clusters.main.port,
): Promise<Proxy> {
  const targets = [
    { name: 'prod', cluster: clusters.main, databaseName: first },
    { name: 'prod_new', cluster: clusters.main, databaseName: second },
  ];
  const config = configFor(targets, { tls: tlsOf(keys), general: { defaultPoolSize: 1 } });
  return proxyFor({ config: { ...config, databases: config.databases.map((row) => ({ ...row, host, port })) } });
}

const ASK = 'SELECT ssl, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()';

interface Seen {
  readonly ssl: boolean;
  readonly client_dn: string | null;
}

/** What the server says of a client's connection through the pool, and of one of the engine's. */
async function seen(proxy: Proxy, database = 'prod'): Promise<readonly (Seen | undefined)[]> {
  const client = await clientOf(proxy, database);
  const pooled = await client.query<Seen>(ASK);
  const engine = await withConnection(engineEndpoint(proxy.config, database), (c) => c.query<Seen>(ASK));
  return [pooled.rows[0], engine.rows[0]];
}

/** Why neither gets in. */
async function refusals(proxy: Proxy): Promise<readonly string[]> {
  const attempts = [clientOf(proxy, 'prod'), withConnection(engineEndpoint(proxy.config, 'prod'), (c) => c.query(ASK))];
  const outcomes = await Promise.allSettled(attempts);
  return outcomes.map((outcome) => (outcome.status === 'rejected' ? String(outcome.reason) : 'let in'));
}

const encrypted = { ssl: true };

test('each tls_verify reaches the server that it accepts', async () => {
  expect(await seen(await start({}))).toMatchObject([encrypted, encrypted]);
  expect(await seen(await start({ tls_verify: 'disabled' }))).toMatchObject([{ ssl: false }, { ssl: false }]);
  expect(await seen(await start(keysOf('prefer', 'stranger')))).toMatchObject([encrypted, encrypted]);
  expect(await seen(await start(keysOf('verify_ca'), '127.0.0.1'))).toMatchObject([encrypted, encrypted]);
  const verified = await start(keysOf('verify_full'));
  expect(await seen(verified)).toMatchObject([encrypted, encrypted]);
  expect(verified.servers().map(({ tls }) => tls)).toEqual([true]);
});

test('a server of another authority, or with another name, is not let near a password', async () => {
  for (const verify of ['verify_ca', 'verify_full'] as const)
    for (const problem of await refusals(await start(keysOf(verify, 'stranger'))))
      expect(problem).toMatch(/TLS with the server failed: .*certificate/);
  for (const problem of await refusals(await start(keysOf('verify_full'), '127.0.0.1')))
    expect(problem).toContain("does not match certificate's altnames");
});

test('the certificate of its own is shown to a server that asks', async () => {
  const { certificate, key } = fileOf('client');
  const own = { tls_server_certificate: certificate, tls_server_private_key: key };
  const known = { ssl: true, client_dn: '/CN=client' };
  expect(await seen(await start({ ...keysOf('verify_full'), ...own }))).toEqual([known, known]);
});

test('a cancel request is encrypted as its session is, and the built-in pg_dump as well', async () => {
  await clusters.main.query(first, 'CREATE TABLE dumped (id int)');
  const heard = await tapped(clusters.main.port);
  const proxy = await start(keysOf('verify_full'), 'localhost', heard.port);
  const client = await clientOf(proxy, 'prod');
  const slow = client.query('SELECT pg_sleep(30)').catch((error: unknown) => error);
  await statementsSleep(clusters.main, first);
  proxy.cancelRunning('prod');
  expect(await slow).toMatchObject({ code: '57014' });
  expect(await dumpSchema(engineEndpoint(proxy.config, 'prod'))).toContain('CREATE TABLE public.dumped');
  // Every connection began with the request for TLS and its handshake, and nothing that follows can be read.
  expect(heard.connections.length).toBeGreaterThanOrEqual(3);
  for (const bytes of heard.connections) {
    expect(bytes.subarray(0, 9).toString('hex')).toBe(`${SSL_REQUEST.toString('hex')}16`);
    expect(bytes.includes(Buffer.from('postgres\0'))).toBe(false);
  }
});

test('after a swap and a RELOAD the pools keep to the rule, and what an older rule let in is not used again', async () => {
  const proxy = await start({ tls_verify: 'disabled' });
  const client = await clientOf(proxy, 'prod');
  const connections = new Connections();
  const engine = async (): Promise<Seen | undefined> => {
    const connection = await connections.get(engineEndpoint(proxy.config, 'prod'), 'watch');
    return (await connection.query<Seen>(ASK)).rows[0];
  };
  const pooled = async (): Promise<unknown> =>
    (await client.query<Seen & { db: string }>(`SELECT current_database() AS db, ssl FROM (${ASK}) AS s`)).rows[0];
  expect(await pooled()).toEqual({ db: first, ssl: false });
  expect(await engine()).toMatchObject({ ssl: false });
  proxy.apply({ ...proxy.config, tls: tlsOf(keysOf('verify_full')) });
  expect(await pooled()).toEqual({ db: first, ssl: true });
  expect(await engine()).toMatchObject(encrypted);
  proxy.apply(swapNames(proxy.config, 'prod', 'prod_new'));
  expect(await pooled()).toEqual({ db: second, ssl: true });
  expect(await seen(proxy, 'prod_new')).toMatchObject([encrypted, encrypted]);
  expect(conninfoOf(engineEndpoint(proxy.config, 'prod'), {})).toContain("sslmode='require'");
  await connections.close();
});

test('whoever stands in between and takes TLS apart is not logged in through: the password is bound to the certificate', async () => {
  const between = await takenApart(clusters.main.port);
  for (const problem of await refusals(await start({}, 'localhost', between)))
    expect(problem).toMatch(/channel binding/);
  // Without TLS there is nothing to be bound to.
  expect(await seen(await start({ tls_verify: 'disabled' }))).toMatchObject([{ ssl: false }, { ssl: false }]);
});

test('a server without TLS serves where nothing else is asked for', async () => {
  await setTls(clusters.main, null);
  expect(await seen(await start({}))).toMatchObject([{ ssl: false }, { ssl: false }]);
  for (const problem of await refusals(await start(keysOf('verify_ca'))))
    expect(problem).toContain('the server offers no TLS, which tls_verify = "verify_ca" asks for');
});

test('plain text behind the answer of the server is not taken for what it says inside of TLS', async () => {
  // CVE-2021-23222: an AuthenticationOk of whoever stands in between.
  const port = await listening((socket) => socket.on('data', () => socket.write('SR\0\0\0\b\0\0\0\0')));
  const endpoint: Endpoint = { host: '127.0.0.1', port, database: 'd', user: 'u', tls: { verify: 'prefer' } };
  const engine = withConnection(endpoint, (connection) => connection.query('SELECT'));
  await expect(engine).rejects.toThrow('plain text in the place of a TLS handshake');
});

/** Shows a certificate of its own and passes on what it reads, encrypted again. @returns its port */
async function takenApart(target: number): Promise<number> {
  const { certificatePem: cert, keyPem: key } = authority.issue('between', ['localhost']);
  return listening((near) => {
    near.once('data', () => {
      near.pause();
      const far = connect(target, '127.0.0.1');
      far.write(SSL_REQUEST);
      far.once('data', () => {
        near.write('S');
        const decrypted = new TLSSocket(near, { isServer: true, cert, key });
        const encrypted = connectTls({ socket: far, rejectUnauthorized: false });
        for (const end of [decrypted, encrypted]) end.on('error', () => undefined);
        decrypted.pipe(encrypted).pipe(decrypted);
      });
    });
  });
}

/** A server that ends with the test. @returns its port */
async function listening(serve: (socket: Socket) => void): Promise<number> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  endLater(() => Promise.resolve(server.close()));
  return (server.address() as AddressInfo).port;
}

/** Stands between the proxy and a server and keeps what the proxy sends, by connection. */
async function tapped(target: number): Promise<{ readonly port: number; readonly connections: Buffer[] }> {
  const connections: Buffer[] = [];
  const port = await listening((near) => {
    const far = connect(target, '127.0.0.1').on('error', () => undefined);
    const at = connections.push(Buffer.alloc(0)) - 1;
    near.on('data', (chunk: Buffer) => (connections[at] = Buffer.concat([connections[at] ?? chunk, chunk])));
    near.pipe(far).pipe(near);
  });
  return { port, connections };
}
