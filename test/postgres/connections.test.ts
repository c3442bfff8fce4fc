/** One task: hold the engine's connections to their deadline: one that went silent is not waited for again. */
import { createServer, connect as open, type Server, type Socket } from 'node:net';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Connections } from '../../src/postgres/connections.js';
import { useClusters } from '../support/clusters.js';
import { until } from '../support/wait.js';

const clusters = useClusters({ server: { major: 17 } });
const DEADLINE_MS = 300;

/** Passes bytes to a server until it is told to forget the connections it has; nobody hears of that. */
class ForgetfulFirewall {
  readonly #server: Server;
  readonly #sockets: Socket[] = [];

  constructor(port: number) {
    this.#server = createServer((client) => {
      const upstream = open(port, '127.0.0.1');
      client.pipe(upstream).pipe(client);
      for (const socket of [client, upstream]) socket.on('error', () => undefined);
      this.#sockets.push(client, upstream);
    });
  }

  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return (this.#server.address() as AddressInfo).port;
  }

  forget(): void {
    for (const socket of this.#sockets) socket.unpipe().pause();
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}

let firewall: ForgetfulFirewall;
let connections: Connections;

beforeEach(() => {
  firewall = new ForgetfulFirewall(clusters.server.endpoint('postgres').port);
  connections = new Connections({ queryTimeoutMs: DEADLINE_MS });
});

afterEach(async () => {
  await connections.close();
  firewall.close();
});

test('a connection that went silent is replaced after its deadline, not asked for ever', async () => {
  const endpoint = { ...clusters.server.endpoint('postgres'), host: '127.0.0.1', port: await firewall.listen() };
  const first = await connections.get(endpoint, 'record');
  await first.query('SELECT 1');
  firewall.forget();
  await expect(first.query('SELECT 2')).rejects.toThrow('Query read timeout');
  const rows = await until('a statement is answered', async () => {
    const next = await connections.get(endpoint, 'record');
    return (await next.query<{ three: number }>('SELECT 3 AS three')).rows;
  });
  expect(rows).toEqual([{ three: 3 }]);
});
