/** One task: play the client's side of a stream, one step at a time, and keep what it is answered. */
import { FrameScanner, frameRules } from '../../src/wire/frames.js';
import { cancelRequest } from '../../src/wire/frontend.js';
import { connect, type MemorySocket } from './memory-net.js';
import { marked, MARK, type Step } from './stream.js';

const ANY = frameRules([
  { types: String.fromCharCode(...Array.from({ length: 94 }, (_, at) => at + 33)), lengthMax: 0x3fff_ffff },
]);
const PARAMETER_STATUS = 0x53;
const MESSAGES_MAX = 20_000;

/** How many messages had come at each `wait` of a stream. */
export type Pace = readonly number[];

export class Player {
  readonly mark: string;
  /** messages received at each `wait` */
  readonly pace: number[] = [];
  readonly messages: Buffer[] = [];
  closed = false;
  /** what came is not made of messages */
  garbled = false;
  readonly #port: number;
  readonly #steps: readonly Step[];
  readonly #expected: Pace | null;
  readonly #socket: MemorySocket;
  readonly #turnGate: (close: boolean) => void;
  readonly #scanner = new FrameScanner(ANY);
  #at = 0;
  #waits = 0;

  /** @param expected a `wait` lasts until so many messages have come; null: until everything is quiet */
  constructor(
    port: number,
    steps: readonly Step[],
    mark: string,
    turnGate: (close: boolean) => void,
    expected: Pace | null = null,
  ) {
    this.mark = mark;
    this.#port = port;
    this.#steps = steps;
    this.#turnGate = turnGate;
    this.#expected = expected;
    this.#socket = connect({ port });
    this.#socket.on('error', () => undefined);
    this.#socket.on('data', (chunk: Buffer) => {
      this.#receive(chunk);
    });
    this.#socket.on('close', () => (this.closed = true));
  }

  get done(): boolean {
    return this.#at >= this.#steps.length;
  }

  /** @param quiet nothing is under way anywhere */
  mayStep(quiet: boolean): boolean {
    const step = this.#steps[this.#at];
    if (step === undefined) return false;
    if (step.kind !== 'wait') return true;
    if (this.#expected === null) return quiet;
    return this.messages.length >= (this.#expected[this.#waits] ?? 0) || this.closed;
  }

  step(): void {
    const step = this.#steps[this.#at];
    this.#at += 1;
    switch (step?.kind) {
      case 'send':
        if (this.#socket.writable) this.#socket.write(marked(step.bytes, this.mark));
        return;
      case 'wait':
        this.#waits += 1;
        this.pace.push(this.messages.length);
        return;
      case 'cancel':
        this.#cancel();
        return;
      case 'end':
        this.#socket.end();
        return;
      case 'reset':
        this.#socket.reset();
        return;
      case 'close-gate':
      case 'open-gate':
        this.#turnGate(step.kind === 'close-gate');
        return;
      default:
        return;
    }
  }

  /** Closes what the stream has left open. */
  leave(): void {
    if (!this.#socket.destroyed) this.#socket.destroy();
  }

  /** What it was answered behind its login, as any client could have been: without its mark. */
  answers(): string {
    const first = this.messages.findIndex((message) => message[0] === 0x5a);
    const told = this.messages.slice(first + 1);
    return told.map((message) => JSON.stringify(message.toString('latin1').replaceAll(this.mark, MARK))).join('\n');
  }

  /** What servers say by themselves is not counted: a proxy says it at other times. */
  #receive(chunk: Buffer): void {
    if (this.garbled) return;
    // The answer to a request for encryption is one letter.
    if (this.messages.length === 0 && chunk.length === 1 && chunk[0] === 0x4e) return;
    this.#scanner.feed(chunk);
    const { buffer } = this.#scanner;
    try {
      while (this.#scanner.peek()) {
        const { type, start, end } = this.#scanner;
        this.#scanner.consume();
        if (type !== PARAMETER_STATUS && this.messages.length < MESSAGES_MAX)
          this.messages.push(buffer.subarray(start, end));
      }
    } catch {
      this.garbled = true;
    }
  }

  #cancel(): void {
    const key = this.messages.find((message) => message[0] === 0x4b);
    if (key === undefined || key.length < 13) return;
    const socket = connect({ port: this.#port });
    socket.on('error', () => undefined);
    socket.resume();
    socket.end(cancelRequest(key.readInt32BE(5), key.subarray(9)));
  }
}
