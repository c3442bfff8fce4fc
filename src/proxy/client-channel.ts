/** One task: write to a client's socket and know when it has enough; read from it only while that is wanted, and hear when it is gone. */
import { Buffer } from 'node:buffer';
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { readDirectly } from '../postgres/direct-read.js';
import { parameterStatus } from '../wire/backend.js';
import type { UnreadClients } from './unread-clients.js';

/** What a channel tells its session. */
export interface ChannelListener {
  received(chunk: Buffer): void;
  /** more was written than the client has read, said at each write until it has taken enough: then `full` is false once */
  filled(full: boolean): void;
  /** what was written may end in the middle of a message */
  insideMessage(): boolean;
  /** the client closed its side, or the connection broke; may be called twice */
  gone(): void;
}

/** Whoever does not take its last bytes in this time loses them. */
const FAREWELL_TIMEOUT_MS = 5_000;
/** A client that is not read is told something once in so many looks: see {@link ClientChannel.look}. */
const TELLING_LOOKS = 10;
/** True of each server since PostgreSQL 10, and may be said between any two messages (PostgreSQL documentation, 19.15 and 54.2.7). */
const TOLD = parameterStatus('integer_datetimes', 'on');
const NOTHING = Buffer.alloc(0);

export class ClientChannel {
  /** more was written than the client has read */
  full = false;
  bytesReceived = 0;
  bytesSent = 0;
  readonly #socket: Socket;
  readonly #unread: UnreadClients;
  readonly #listener: ChannelListener;
  readonly #tls: boolean;
  #reading = true;
  #left = false;
  /** since it is not read */
  #looks = 0;

  constructor(socket: Socket, unread: UnreadClients, listener: ChannelListener) {
    this.#socket = socket;
    this.#unread = unread;
    this.#listener = listener;
    this.#tls = socket instanceof TLSSocket;
    const received = (chunk: Buffer): boolean => {
      if (this.#left) return true;
      this.bytesReceived += chunk.length;
      listener.received(chunk);
      return true;
    };
    socket.on('data', received);
    readDirectly(socket, received);
    socket.on('drain', () => {
      this.full = false;
      listener.filled(false);
    });
    socket.on('end', () => {
      listener.gone();
    });
    socket.on('close', () => {
      unread.note(this, true);
      listener.gone();
    });
  }

  /** To be called once the session is ready for what the client sends. */
  open(): void {
    this.#socket.resume();
  }

  write(bytes: Buffer): void {
    this.bytesSent += bytes.length;
    if (!this.#socket.write(bytes)) this.full = true;
    if (this.full) this.#listener.filled(true);
  }

  /** As write(), of bytes that are overwritten once it has returned. @returns false: not all have gone, and they must stay as they are */
  relay(bytes: Buffer): boolean {
    const socket = this.#socket;
    if (this.#tls || socket.writableLength > 0) {
      this.write(Buffer.from(bytes));
      return true;
    }
    this.write(bytes);
    return socket.writableLength === 0;
  }

  /** Reads on, or leaves what comes in the socket. */
  read(wanted: boolean): void {
    if (wanted === this.#reading) return;
    this.#reading = wanted;
    this.#looks = 0;
    // Behind its close nobody says any more that it is over.
    this.#unread.note(this, wanted || this.#socket.destroyed);
    if (wanted) this.#socket.resume();
    else this.#socket.pause();
  }

  /**
   * To be called about twice a second. Of a socket that is neither read nor written nobody is told that it broke: a write of nothing finds
   * out. That it was closed stands behind what is unread: so the client is told something, and the system of one that is gone says so.
   */
  look(): void {
    // What the client has not taken yet is being written.
    if (this.#reading || this.#left || this.full) return;
    this.#looks += 1;
    const tells = this.#looks % TELLING_LOOKS === 0 && !this.#listener.insideMessage();
    this.write(tells ? TOLD : NOTHING);
  }

  /** Hears nothing more from the client, and closes once it has taken what was written. */
  leave(): void {
    this.#left = true;
    this.#socket.resume();
    this.#socket.end();
    this.#socket.setTimeout(FAREWELL_TIMEOUT_MS, () => this.#socket.destroy());
  }
}
