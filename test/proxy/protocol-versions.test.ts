/** One task: clients speak protocol 3.0 and 3.2 with the proxy, and the proxy speaks both with servers. */
import { expect, test } from 'vitest';
import { connect } from '../../src/postgres/connection.js';
import type { Proxy } from '../../src/proxy/contract.js';
import { logIn } from '../../src/proxy/server-login.js';
import { HEADER_BYTES } from '../../src/wire/frames.js';
import { cancelRequest, query, startupMessage } from '../../src/wire/frontend.js';
import { freshDatabase, useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';
import { configFor, endLater, proxyFor, RawClient, statementsSleep, USER, type Message } from './support.js';

const clusters = useClusters({ new: { major: 18 }, old: { major: 17 } });

async function start(): Promise<{ proxy: Proxy; databaseName: string }> {
  const databaseName = await freshDatabase(clusters.new);
  const proxy = await proxyFor({ config: configFor([{ name: 'prod', cluster: clusters.new, databaseName }]) });
  return { proxy, databaseName };
}

interface Greeting {
  readonly raw: RawClient;
  /** version and options of NegotiateProtocolVersion; null when there was none */
  readonly negotiated: readonly [version: number, options: string] | null;
  readonly processId: number;
  readonly secret: Buffer;
}

async function greeted(proxy: Proxy, minor: number, options: Record<string, string> = {}): Promise<Greeting> {
  const raw = new RawClient(proxy);
  raw.send(startupMessage({ user: USER, database: 'prod', ...options }, minor));
  const messages = await raw.until('Z');
  const bodyOf = (type: string): Buffer | undefined => bodyIn(messages, type);
  const [answer, key] = [bodyOf('v'), bodyOf('K') ?? Buffer.alloc(4)];
  const negotiated = answer && ([answer.readInt32BE(0), answer.toString('latin1', 4)] as const);
  return { raw, negotiated: negotiated ?? null, processId: key.readInt32BE(0), secret: key.subarray(4) };
}

function bodyIn(messages: readonly Message[], type: string): Buffer | undefined {
  return messages.find((message) => message.type === type)?.bytes.subarray(HEADER_BYTES);
}

test('each minor version gets the secret it expects, and what is not spoken is negotiated as PostgreSQL does', async () => {
  const { proxy } = await start();
  for (const [minor, secretBytes] of [
    [0, 4],
    [1, 4],
    [2, 32],
  ] as const) {
    const { negotiated, secret } = await greeted(proxy, minor);
    expect({ minor, negotiated, bytes: secret.length }).toEqual({ minor, negotiated: null, bytes: secretBytes });
  }
  // What libpq sends to see whether servers negotiate.
  const grease = await greeted(proxy, 9_999, { '_pq_.test_protocol_negotiation': '' });
  expect(grease.negotiated).toEqual([0x0003_0002, '\0\0\0\x01_pq_.test_protocol_negotiation\0']);
  expect(grease.secret).toHaveLength(32);
  const option = await greeted(proxy, 0, { '_pq_.shiny': '1' });
  expect(option.negotiated).toEqual([0x0003_0000, '\0\0\0\x01_pq_.shiny\0']);
  expect(option.secret).toHaveLength(4);
  option.raw.send(query('SELECT 1'));
  expect(option.raw.types(await option.raw.until('Z'))).toBe('TDCZ');
});

test('a long secret cancels, its beginning does not, and a longer one than the protocol has is refused', async () => {
  const { proxy, databaseName } = await start();
  const { raw, processId, secret } = await greeted(proxy, 2);
  raw.send(query('SELECT pg_sleep(30)'));
  await statementsSleep(clusters.new, databaseName);
  for (const wrong of [secret.subarray(0, 4), Buffer.concat([secret, Buffer.alloc(1)]), Buffer.alloc(257)]) {
    const asking = new RawClient(proxy);
    asking.send(cancelRequest(processId, wrong));
    await until('it is closed', () => asking.closed);
    expect(asking.types(asking.messages)).toBe(wrong.length > 256 ? 'E' : '');
  }
  await statementsSleep(clusters.new, databaseName);
  new RawClient(proxy).send(cancelRequest(processId, secret));
  const answer = await raw.until('Z');
  expect(bodyIn(answer, 'E')?.toString()).toContain('57014');
});

test('libpq 18 insists on 3.2, and cancels by it', async () => {
  const { proxy, databaseName } = await start();
  // A server of version 18 has libpq 18 in it.
  const libpq = await connect(clusters.new.endpoint(await freshDatabase(clusters.new)));
  endLater(() => libpq.end());
  await libpq.query('SET search_path = public; CREATE EXTENSION dblink');
  const { host, port } = proxy.address;
  const target = `host=${host} port=${port.toString()} dbname=prod user=${USER} password=x sslmode=disable`;
  await libpq.query('SELECT dblink_connect($1, $2)', [
    'c',
    `${target} min_protocol_version=3.2 max_protocol_version=latest`,
  ]);
  await libpq.query(`SELECT dblink_send_query('c', 'SELECT pg_sleep(30)')`);
  await statementsSleep(clusters.new, databaseName);
  await libpq.query(`SELECT dblink_cancel_query('c')`);
  const ended = libpq.query(`SELECT * FROM dblink_get_result('c') AS answer(nothing text)`);
  await expect(ended).rejects.toMatchObject({ code: '57014' });
});

test.each(['new', 'old'] as const)('the %s server is spoken to in the newest version it has', async (name) => {
  const login = await logIn(clusters[name].endpoint('postgres'), 5_000, {});
  login.socket.destroy();
  expect(login.secret).toHaveLength(name === 'new' ? 32 : 4);
});
