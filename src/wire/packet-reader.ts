/**
 * One task: read the few messages of a login one after the other, before a session takes the socket over.
 *
 * Contract: at most one read is pending; never more than BUFFER_BYTES_MAX are held: the socket is paused instead. A read
 * rejects when the socket ends. release() hands the socket back, paused, with the bytes nobody asked for.
 */
import type { Socket } from 'node:net';
import { LOGIN_RULES } from './codes.js';
import { FrameScanner } from './frames.js';
import { startupLength } from './startup.js';

const BUFFER_BYTES_MAX = 131_072;
const NOTHING = Buffer.alloc(0);

export interface Packet {
  readonly type: number;
  /** the whole frame, header included */
  readonly bytes: Buffer;
}

export class PacketReader {
  readonly #socket: Socket;
  #bytes: Buffer = NOTHING;
  #ended: Error | null = null;
  #wake: (() => void) | null = null;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', this.#onData);
    socket.on('close', this.#onClose);
  }

  /** The next packet without a type: what opens a connection. */
  startup(): Promise<Buffer> {
    return this.#read((bytes) => (bytes.length < 4 ? null : startupLength(bytes)));
  }

  /** The byte that comes next, which stays to be read. */
  async look(): Promise<number> {
    await this.#read((bytes) => (bytes.length === 0 ? null : 0));
    return this.#bytes[0] ?? 0;
  }

  /** The next message. @throws FrameError when it cannot belong to a login */
  async message(): Promise<Packet> {
    const bytes = await this.#read((held) => {
      const scanner = new FrameScanner(LOGIN_RULES);
      scanner.feed(held);
      return scanner.peek() ? scanner.length : null;
    });
    return { type: bytes[0] ?? 0, bytes };
  }

  /** Stops reading and gives back what was read too far. The socket is paused. */
  release(): Buffer {
    this.#socket.pause();
    this.#socket.off('data', this.#onData);
    this.#socket.off('close', this.#onClose);
    // A view of nothing would keep the memory that it is a view of.
    return this.#bytes.length === 0 ? NOTHING : this.#bytes;
  }

  async #read(lengthOf: (bytes: Buffer) => number | null): Promise<Buffer> {
    // Ends with the socket: each turn waits for more bytes or its close.
    for (;;) {
      const length = lengthOf(this.#bytes);
      if (length !== null && this.#bytes.length >= length) {
        const packet = this.#bytes.subarray(0, length);
        this.#bytes = this.#bytes.subarray(length);
        return packet;
      }
      if (this.#ended !== null) throw this.#ended;
      this.#socket.resume();
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
    if (this.#bytes.length > BUFFER_BYTES_MAX) this.#socket.pause();
    this.#wakeUp();
  };

  readonly #onClose = (): void => {
    this.#ended = new Error('the connection ended while it logged in');
    this.#wakeUp();
  };

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }
}
