/** One task: a TCP relay on loopback that can be told to treat its connections as a bad network would. */
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { once } from 'node:events';
import { LOOPBACK } from '../../src/dev/ports.js';

/**
 * - `calm`: bytes pass
 * - `blackhole`: nothing passes, no end either, nor is a new connection answered; what was sent meanwhile arrives late, when it is calm
 * - `half-open`: the server's end of each connection is gone and the client is not told; new connections pass
 * - `reset`: both ends of each connection read a reset, and so does whoever connects
 * - `slow`: each piece takes its time, in order
 */
export type Weather = 'calm' | 'blackhole' | 'half-open' | 'reset' | 'slow';

const SLOW_MS = 100;

export class ChaosProxy {
  readonly #server: Server;
  readonly #targetPort: number;
  readonly #links = new Set<Link>();
  #weather: Weather = 'calm';

  private constructor(server: Server, targetPort: number) {
    this.#server = server;
    this.#targetPort = targetPort;
    server.on('connection', (client) => {
      this.#accept(client);
    });
  }

  static async listen(targetPort: number): Promise<ChaosProxy> {
    const server = createServer({ allowHalfOpen: true });
    const chaos = new ChaosProxy(server, targetPort);
    server.listen(0, LOOPBACK);
    await once(server, 'listening');
    return chaos;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Treats present connections so from now on, and new ones until the next call. */
  set(weather: Weather): void {
    this.#weather = weather;
    for (const link of this.#links) link.set(weather);
  }

  #accept(client: Socket): void {
    if (this.#weather === 'reset') {
      client.on('error', () => undefined);
      client.resetAndDestroy();
      return;
    }
    const link = new Link(client, this.#targetPort, () => this.#links.delete(link));
    this.#links.add(link);
    // A connection made after the others lost their server's end is as good as any.
    link.set(this.#weather === 'half-open' ? 'calm' : this.#weather);
  }

  async close(): Promise<void> {
    for (const link of [...this.#links]) link.set('reset');
    this.#server.close();
    await once(this.#server, 'close');
  }
}

/** One connection of a client and, once it may, the server's end of it. */
class Link {
  readonly #client: Socket;
  readonly #targetPort: number;
  readonly #gone: () => void;
  #server: Socket | null = null;
  #weather: Weather = 'calm';
  /** the server's end was lost and the client does not know */
  #severed = false;

  constructor(client: Socket, targetPort: number, gone: () => void) {
    this.#client = client;
    this.#targetPort = targetPort;
    this.#gone = gone;
    client.setNoDelay(true);
    client.pause();
    this.#endsWith(client);
  }

  set(weather: Weather): void {
    this.#weather = weather;
    if (weather === 'reset' || (weather === 'calm' && this.#severed)) this.#reset();
    else if (weather === 'half-open') this.#sever();
    else if (weather === 'blackhole') for (const end of [this.#client, this.#server]) end?.pause();
    else this.#flow();
  }

  #flow(): void {
    if (!this.#server) {
      const server = connect({ host: LOOPBACK, port: this.#targetPort, allowHalfOpen: true });
      server.setNoDelay(true);
      this.#server = server;
      this.#endsWith(server);
      this.#relay(this.#client, server);
      this.#relay(server, this.#client);
    }
    this.#client.resume();
    this.#server.resume();
  }

  #relay(from: Socket, to: Socket): void {
    from.on('data', (chunk: Buffer) => {
      if (this.#severed) return;
      this.#inTime(() => {
        if (to.destroyed || to.write(chunk)) return;
        from.pause();
        to.once('drain', () => {
          if (this.#weather !== 'blackhole') from.resume();
        });
      });
    });
    from.on('end', () => {
      if (!this.#severed) this.#inTime(() => to.end());
    });
  }

  /** Equal delays keep the order of the pieces. */
  #inTime(deliver: () => void): void {
    if (this.#weather === 'slow') setTimeout(deliver, SLOW_MS);
    else deliver();
  }

  #sever(): void {
    this.#severed = true;
    this.#server?.destroy();
    // What the client sends is read and lost.
    this.#client.resume();
  }

  #reset(): void {
    for (const end of [this.#client, this.#server]) if (end && !end.destroyed) end.resetAndDestroy();
  }

  #endsWith(end: Socket): void {
    end.on('error', () => undefined);
    end.on('close', () => {
      const other = end === this.#client ? this.#server : this.#client;
      if (end === this.#client) this.#gone();
      // The news of an end does not travel through a network that swallows everything.
      if (this.#severed && end !== this.#client) return;
      if (this.#weather === 'blackhole') this.#severed = true;
      else other?.destroy();
    });
  }
}
