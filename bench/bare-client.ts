/** One task: be a client that costs next to nothing: a socket that counts what comes, so that what is measured is not the client. */
import { connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { frame } from '../src/wire/backend.js';
import type { Endpoint } from '../src/postgres/endpoint.js';
import { query, startupMessage } from '../src/wire/frontend.js';

const READY = 0x5a;
const READY_BYTES = 6;

/** Whether an answer ends with this piece. Right for answers whose rows do not end as a ReadyForQuery does. */
export function endsAnswer(piece: Buffer): boolean {
  const at = piece.length - READY_BYTES;
  return at >= 0 && piece[at] === READY && piece.readUInt32BE(at + 1) === READY_BYTES - 1;
}

export class BareClient {
  readonly #socket: Socket;
  #bytes = 0;
  #answered: (bytes: number) => void = () => undefined;
  #failed: (error: Error) => void = () => undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', (error) => {
      this.#failed(error);
    });
    socket.on('close', () => {
      this.#failed(new Error('the connection was closed'));
    });
    socket.on('data', (piece: Buffer) => {
      this.#bytes += piece.length;
      if (endsAnswer(piece)) this.#answered(this.#bytes);
    });
  }

  /** Where nobody asks for a password. */
  static async login({ host, port, user, database }: Endpoint): Promise<BareClient> {
    const client = new BareClient(connect({ host, port, noDelay: true }));
    const greeted = client.#answer();
    client.#socket.write(startupMessage({ user, database }));
    await greeted;
    return client;
  }

  /** Answers how many bytes came back. @throws Error where the connection ends before */
  async ask(text: string): Promise<number> {
    const answer = this.#answer();
    this.#socket.write(query(text));
    return answer;
  }

  /** COPY FROM STDIN of so many pieces. @throws Error where the connection ends before */
  async copyIn(text: string, piece: Buffer, pieces: number): Promise<void> {
    const answer = this.#answer();
    this.#socket.write(query(text));
    const message = frame('d', piece);
    for (let sent = 0; sent < pieces; sent += 1) if (!this.#socket.write(message)) await once(this.#socket, 'drain');
    this.#socket.write(frame('c'));
    await answer;
  }

  #answer(): Promise<number> {
    this.#bytes = 0;
    return new Promise((resolve, reject) => {
      this.#answered = resolve;
      this.#failed = reject;
    });
  }

  end(): void {
    this.#failed = () => undefined;
    this.#socket.destroy();
  }
}
