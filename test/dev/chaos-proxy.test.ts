/** One task: a network that is slow is only slow: its delay is what was asked for, and no byte is lost or overtakes another. */
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { ChaosProxy } from '../../src/dev/chaos-proxy.js';
import { DelayLine } from '../../src/dev/delay-line.js';
import { LOOPBACK } from '../../src/dev/ports.js';
import { until } from '../support/wait.js';

const SLOW_MS = 60;
const ends: (() => unknown)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

/** Answers how to connect, over a slow way, to a server on a port of its own. */
async function slowWay(serve: (socket: Socket) => void): Promise<() => Promise<Socket>> {
  const server: Server = createServer((socket) => {
    ends.push(() => socket.destroy());
    serve(socket);
  });
  server.listen(0, LOOPBACK);
  await once(server, 'listening');
  ends.push(() => server.close());
  const chaos = await ChaosProxy.listen((server.address() as AddressInfo).port, { slowMs: SLOW_MS });
  ends.push(() => chaos.close());
  chaos.set('slow');
  return async () => {
    const client = connect(chaos.port, LOOPBACK);
    client.on('error', () => undefined);
    ends.push(() => client.destroy());
    await once(client, 'connect');
    return client;
  };
}

async function call(client: Socket): Promise<void> {
  client.write('ask');
  await once(client, 'data');
}

test('a call over a slow way takes the delay of both directions', async () => {
  const client = await (await slowWay((socket) => socket.pipe(socket)))();
  for (let calls = 0; calls < 3; calls += 1) {
    const sentAtMs = performance.now();
    await call(client);
    expect(performance.now() - sentAtMs).toBeGreaterThanOrEqual(2 * SLOW_MS);
  }
});

test('two things sent with different delays arrive in their order', async () => {
  const line = new DelayLine();
  const arrived: string[] = [];
  line.add(1, SLOW_MS, () => arrived.push('slow'));
  line.add(2, 0, () => arrived.push('calm'));
  expect(line.bytes).toBe(3);
  await until('both have arrived', () => arrived.length === 2);
  expect(arrived).toEqual(['slow', 'calm']);
  expect(line.bytes).toBe(0);
});

test('a receiver that does not read bounds what a slow way holds', async () => {
  const sockets: Socket[] = [];
  const connected = await slowWay((socket) => {
    sockets.push(socket);
    // The first one is never read, the second one answers.
    if (sockets.length > 1) socket.pipe(socket);
  });
  const client = await connected();
  const clock = await connected();
  const piece = Buffer.alloc(1024 * 1024);
  const pieces = 24;
  for (let sent = 0; sent < pieces; sent += 1) client.write(piece);
  await until('the sender has to wait', async () => {
    const before = client.writableLength;
    await call(clock);
    return before === client.writableLength;
  });
  expect(client.writableLength).toBeGreaterThan(0);
  let received = 0;
  sockets[0]?.on('data', (chunk: Buffer) => (received += chunk.length));
  await until('everything arrives once it is read', () => received === pieces * piece.length);
});
