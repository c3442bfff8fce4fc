/**
 * One task: read a socket past its stream, again and again into the same buffer.
 *
 * A stream takes new memory for each read and puts the bytes in its queue; on a connection that is read for each statement that is the
 * better half of reading. A {@link DirectRead} has a buffer to itself, for whoever is done with the bytes when it returns. Many sockets
 * have one together ({@link SharedRead}), out of which each read is copied. Until somebody takes the bytes ({@link readDirectly}) they go
 * through the stream as on every other socket, so that logging in and TLS find them there.
 */
import { Buffer } from 'node:buffer';
import type { OnReadOpts, Socket } from 'node:net';

/** Read at most at once, as by Node itself. */
const BUFFER_BYTES = 65_536;
/** The same of a connection that has filled that once: of a long answer each read and each write is so much more (docs/evidence/scale.md). */
const LONG_BUFFER_BYTES = 262_144;

/** Takes bytes that are its own until it returns. @returns false: it needs them for longer, and they stay as they are */
type Receive = (bytes: Buffer) => boolean;

const reads = new WeakMap<Socket, { receive: Receive | null }>();

export class DirectRead {
  /** for connect(); `opened` must be called with the socket that it gives */
  readonly options: OnReadOpts = {
    buffer: () => this.#buffer,
    callback: (bytes) => this.#read(bytes),
  };
  receive: Receive | null = null;
  #buffer: Buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  #socket: Socket | null = null;

  opened(socket: Socket): void {
    this.#socket = socket;
    reads.set(socket, this);
  }

  /** @returns false to stop reading until the stream asks for more */
  #read(length: number): boolean {
    const bytes = this.#buffer.subarray(0, length);
    if (this.receive === null) return this.#socket?.push(Buffer.from(bytes)) ?? false;
    const isDone = this.receive(bytes);
    const grows = length === BUFFER_BYTES && length === this.#buffer.length;
    if (!isDone || grows) this.#buffer = Buffer.allocUnsafeSlow(grows ? LONG_BUFFER_BYTES : this.#buffer.length);
    return true;
  }
}

/** What is read is read into it on the call that hands it on, so that no two reads are in it. */
const SHARED = Buffer.allocUnsafeSlow(BUFFER_BYTES);

/** As a {@link DirectRead}, with one buffer for all: what `receive` gets is its own for good. */
export class SharedRead {
  /** for a socket of which `opened` is to be called at once */
  readonly options: OnReadOpts = {
    buffer: SHARED,
    callback: (bytes) => this.#read(bytes),
  };
  receive: Receive | null = null;
  #socket: Socket | null = null;

  opened(socket: Socket): void {
    this.#socket = socket;
    reads.set(socket, this);
  }

  /** @returns false to stop reading until the stream asks for more */
  #read(length: number): boolean {
    const bytes = Buffer.from(SHARED.subarray(0, length));
    if (this.receive === null) return this.#socket?.push(bytes) ?? false;
    this.receive(bytes);
    return true;
  }
}

/**
 * From now on `receive` gets what the socket reads, and its stream only says how it ends. What is in the stream's queue stays there, to be
 * read first. Nothing happens on a socket that was not opened for it, or is encrypted.
 */
export function readDirectly(socket: Socket, receive: Receive): void {
  const read = reads.get(socket);
  if (read !== undefined) read.receive = receive;
}
