/**
 * One task: stand in the place of node:net for a proxy under the fuzzer: what is written waits until the fuzzer delivers it.
 *
 * So the fuzzer decides which connection goes on next and where a chunk is cut, and the same numbers give the same run. The sockets are
 * streams of Node's own with its rules of flow control. An endpoint that was closed answers further bytes with an error, as TCP does. That
 * a connection broke is told to whoever reads or writes, and to nobody else; that it was closed stands behind the bytes before.
 */
import { EventEmitter } from 'node:events';
import { Duplex } from 'node:stream';

export { isIP } from 'node:net';

/** The system asks after a connection that is silent (`[tcp] keepalive`), and that of a peer that is gone answers with a reset: heard by a write. */
const KEEP_ALIVE_MS = 70_000;

type Parcel =
  | { readonly kind: 'open'; readonly port: number }
  | { readonly kind: 'bytes'; bytes: Buffer; readonly done: (error?: Error | null) => void }
  | { readonly kind: 'end' }
  | { readonly kind: 'reset' };

/** Node's `onread`, as far as the product uses it. */
interface OnRead {
  readonly buffer: () => Buffer;
  readonly callback: (length: number) => boolean;
}

type Accept = (socket: MemorySocket) => void;

const HIGH_WATER_BYTES = 16_384;
/** What an operating system takes before the other side has read it. */
const TAKEN_AT_ONCE_BYTES = 4_096;

/** Everything under way. */
class Wire {
  /** who has something to be delivered, the longest first */
  readonly addressees = new Set<MemorySocket>();
  readonly listeners = new Map<number, Accept>();
  lastPort = 0;

  /** Who can be delivered to now. */
  ready(): MemorySocket[] {
    return [...this.addressees].filter((socket) => socket.deliverable);
  }

  /** Nothing is under way any more, and nobody listens. */
  reset(): void {
    this.addressees.clear();
    this.listeners.clear();
    this.lastPort = 0;
  }
}

export const wire = new Wire();

/** Answers like a socket of node:net, as far as the product uses one. */
export class MemorySocket extends Duplex {
  readonly remoteAddress = '127.0.0.1';
  readonly remotePort: number;
  readonly localAddress = '127.0.0.1';
  readonly localPort: number;
  bytesRead = 0;
  bytesWritten = 0;
  peer: MemorySocket | null = null;
  readonly #inbox: Parcel[] = [];
  #wanted = false;
  #broken: Error | null = null;
  /** what was written before the connection was open */
  #opened: () => void = () => undefined;
  #timer: NodeJS.Timeout | null = null;
  #goneAtMs = Number.POSITIVE_INFINITY;

  readonly #onread: OnRead | null;

  constructor(localPort: number, remotePort: number, onread: OnRead | null = null) {
    super({ allowHalfOpen: false, highWaterMark: HIGH_WATER_BYTES });
    this.localPort = localPort;
    this.remotePort = remotePort;
    this.#onread = onread;
  }

  get deliverable(): boolean {
    const [first] = this.#inbox;
    return first !== undefined && (first.kind !== 'bytes' || this.#wanted || this.destroyed);
  }

  get #waitingBytes(): number {
    return this.#inbox.reduce((sum, parcel) => sum + (parcel.kind === 'bytes' ? parcel.bytes.length : 0), 0);
  }

  put(parcel: Parcel): void {
    this.#inbox.push(parcel);
    wire.addressees.add(this);
  }

  /** Delivers the next parcel, of bytes at most so many. */
  deliver(bytesMax: number): void {
    const [parcel] = this.#inbox;
    if (parcel === undefined) return;
    if (parcel.kind === 'bytes' && parcel.bytes.length > bytesMax && !this.destroyed) {
      this.#take(parcel.bytes.subarray(0, bytesMax));
      parcel.bytes = parcel.bytes.subarray(bytesMax);
      return;
    }
    this.#inbox.shift();
    if (this.#inbox.length === 0) wire.addressees.delete(this);
    if (parcel.kind === 'open') this.#open(parcel.port);
    else if (this.destroyed) {
      if (parcel.kind === 'bytes') parcel.done(brokenPipe());
    } else if (parcel.kind === 'bytes') {
      this.#take(parcel.bytes);
      parcel.done();
    } else if (parcel.kind === 'end') this.push(null);
    else this.#breaks(new Error('read ECONNRESET'));
  }

  #breaks(error: Error): void {
    this.#broken = error;
    if (this.#wanted || this.writableLength > 0) this.destroy(error);
  }

  setTimeout(timeoutMs: number, expired: () => void): this {
    this.#timer = setTimeout(expired, timeoutMs);
    return this;
  }

  /** There is nothing between two ends in one process that could be lost. */
  setKeepAlive(): this {
    return this;
  }

  destroySoon(): void {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once('finish', () => this.destroy());
  }

  /** Ends it as a process that dies does: what is under way to it is lost. */
  reset(): void {
    this.peer?.put({ kind: 'reset' });
    this.destroy();
  }

  override _read(): void {
    this.#want();
  }

  #want(): void {
    this.#wanted = true;
    if (this.#broken !== null) this.destroy(this.#broken);
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    this.bytesWritten += chunk.length;
    const { peer } = this;
    if (chunk.length === 0 && peer !== null && performance.now() - peer.#goneAtMs > KEEP_ALIVE_MS)
      this.#broken ??= new Error('write ECONNRESET');
    if (this.#broken !== null || chunk.length === 0) {
      done(this.#broken);
      return;
    }
    if (peer !== null && peer.#waitingBytes + chunk.length <= TAKEN_AT_ONCE_BYTES) {
      const failed = (error?: Error | null): void => {
        if (error) this.#breaks(error);
      };
      // The writer may use its buffer again from now on, and not before.
      peer.put({ kind: 'bytes', bytes: Buffer.from(chunk), done: failed });
      done();
      return;
    }
    const parcel: Parcel = { kind: 'bytes', bytes: chunk, done };
    if (peer === null) this.#opened = () => this.peer?.put(parcel);
    else peer.put(parcel);
  }

  override _final(done: () => void): void {
    if (this.peer === null) this.#opened = () => this.peer?.put({ kind: 'end' });
    else this.peer.put({ kind: 'end' });
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#goneAtMs = performance.now();
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (!this.writableFinished) this.peer?.put({ kind: 'end' });
    done(error);
  }

  /** As Node's sockets that are opened with `onread`: read past the stream, into a buffer that is used again. */
  override pause(): this {
    super.pause();
    if (this.#onread !== null) this.#wanted = false;
    return this;
  }

  override resume(): this {
    super.resume();
    if (this.#onread !== null) this.#want();
    return this;
  }

  #take(bytes: Buffer): void {
    this.bytesRead += bytes.length;
    this.#wanted = false;
    if (this.#onread === null) {
      if (this.push(Buffer.from(bytes))) this.#wanted = true;
      return;
    }
    for (let from = 0; from < bytes.length && !this.destroyed;) {
      const into = this.#onread.buffer();
      const length = bytes.copy(into, 0, from);
      from += length;
      if (this.#onread.callback(length)) this.#wanted = true;
      // Whoever kept a view of it shall see that it was used again.
      if (into === this.#onread.buffer()) into.fill(0x2a, 0, length);
    }
    if (this.isPaused()) this.#wanted = false;
  }

  #open(port: number): void {
    const accept = wire.listeners.get(port);
    if (this.destroyed) return;
    if (accept === undefined) {
      this.destroy(new Error(`connect ECONNREFUSED ${port.toString()}`));
      return;
    }
    const peer = new MemorySocket(port, this.localPort);
    this.peer = peer;
    peer.peer = this;
    accept(peer);
    this.emit('connect');
    this.#opened();
  }
}

function brokenPipe(): Error {
  return new Error('write EPIPE');
}

class MemoryServer extends EventEmitter {
  readonly #accept: Accept;
  #port = 0;

  constructor(accept: Accept) {
    super();
    this.#accept = accept;
  }

  listen({ port }: { readonly port: number }, listening: () => void): this {
    this.#port = port;
    wire.listeners.set(port, this.#accept);
    listening();
    return this;
  }

  address(): { readonly address: string; readonly port: number } {
    return { address: '127.0.0.1', port: this.#port };
  }

  close(closed: () => void): this {
    wire.listeners.delete(this.#port);
    closed();
    return this;
  }
}

export function createServer(options: { readonly pauseOnConnect?: boolean }, accept: Accept): MemoryServer {
  return new MemoryServer((socket) => {
    if (options.pauseOnConnect === true) socket.pause();
    accept(socket);
  });
}

export function connect({ port, onread }: { readonly port: number; readonly onread?: OnRead }): MemorySocket {
  wire.lastPort += 1;
  const socket = new MemorySocket(100_000 + wire.lastPort, port, onread);
  socket.put({ kind: 'open', port });
  return socket;
}
