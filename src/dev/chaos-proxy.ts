/** One task: a TCP relay on loopback that can be told to treat its connections as a bad network would. */
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { once } from 'node:events';
import { DelayLine } from './delay-line.js';
import { LOOPBACK } from './ports.js';

/**
 * - `calm`: bytes pass
 * - `blackhole`: nothing passes, no end either, nor is a new connection answered; what was sent meanwhile arrives late, when it is calm
 * - `half-open`: the server's end of each connection is gone and the client is not told; new connections pass
 * - `reset`: both ends of each connection read a reset, and so does whoever connects
 * - `slow`: each piece takes its time, in order, also those that are sent when it is calm again
 */
export type Weather = 'calm' | 'blackhole' | 'half-open' | 'reset' | 'slow';

export interface ChaosOptions {
  /** how long each piece takes in one direction when it is slow; default 100 */
  readonly slowMs?: number;
}

const SLOW_MS = 100;
/** What is on its way in one direction of one connection; more is not read until some of it has arrived. */
const ON_THE_WAY_MAX_BYTES = 1024 * 1024;

export class ChaosProxy {
  readonly #server: Server;
  readonly #targetPort: number;
  readonly #slowMs: number;
  readonly #links = new Set<Link>();
  #weather: Weather = 'calm';

  private constructor(server: Server, targetPort: number, slowMs: number) {
    this.#server = server;
    this.#targetPort = targetPort;
    this.#slowMs = slowMs;
    server.on('connection', (client) => {
      this.#accept(client);
    });
  }

  /** Listens on a free port of loopback; the caller closes it. */
  static async listen(targetPort: number, options: ChaosOptions = {}): Promise<ChaosProxy> {
    const server = createServer({ allowHalfOpen: true });
    const chaos = new ChaosProxy(server, targetPort, options.slowMs ?? SLOW_MS);
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
    const link = new Link(client, this.#targetPort, this.#slowMs, () => this.#links.delete(link));
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
  readonly #slowMs: number;
  readonly #gone: () => void;
  readonly #lines: DelayLine[] = [];
  #server: Socket | null = null;
  #weather: Weather = 'calm';
  /** the server's end was lost and the client does not know */
  #severed = false;

  constructor(client: Socket, targetPort: number, slowMs: number, gone: () => void) {
    this.#client = client;
    this.#targetPort = targetPort;
    this.#slowMs = slowMs;
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
    const line = new DelayLine();
    this.#lines.push(line);
    const readOn = (): void => {
      if (this.#weather !== 'blackhole' && line.bytes < ON_THE_WAY_MAX_BYTES) from.resume();
    };
    const deliver = (chunk: Buffer): void => {
      if (to.destroyed) return;
      const wasFull = to.writableNeedDrain;
      to.write(chunk);
      if (!to.writableNeedDrain) readOn();
      else if (!wasFull) {
        from.pause();
        to.once('drain', readOn);
      }
    };
    from.on('data', (chunk: Buffer) => {
      if (this.#severed) return;
      line.add(chunk.length, this.#delayMs, () => {
        deliver(chunk);
      });
      if (line.bytes >= ON_THE_WAY_MAX_BYTES) from.pause();
    });
    from.on('end', () => {
      if (!this.#severed) line.add(0, this.#delayMs, () => to.end());
    });
  }

  get #delayMs(): number {
    return this.#weather === 'slow' ? this.#slowMs : 0;
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
      for (const line of this.#lines) line.clear();
      const other = end === this.#client ? this.#server : this.#client;
      if (end === this.#client) this.#gone();
      // The news of an end does not travel through a network that swallows everything.
      if (this.#severed && end !== this.#client) return;
      if (this.#weather === 'blackhole') this.#severed = true;
      else other?.destroy();
    });
  }
}
