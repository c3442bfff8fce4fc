/**
 * One task: the thread in which pg_dump runs as WebAssembly.
 *
 * pg_dump calls for its bytes synchronously, the server answers asynchronously: so this thread asks the thread that
 * holds the connection and sleeps in Atomics.wait until the answer is there. It imports nothing of this program.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { pgDump } from '@electric-sql/pglite-tools/pg_dump';

/** What the other thread passes at the start. */
export interface DumpJob {
  readonly args: readonly string[];
  /** bytes of AuthenticationOk … ReadyForQuery */
  readonly greeting: Uint8Array;
  /** one Int32: 1 once an answer lies in the port */
  readonly signal: SharedArrayBuffer;
  readonly deadlineMs: number;
}

/** What this thread says. */
export type FromWorker =
  | { readonly kind: 'ask'; readonly messages: Uint8Array }
  | { readonly kind: 'done'; readonly dump: string }
  | { readonly kind: 'failed'; readonly problem: string };

/** What it hears: the answer to its question; no answer means that it is ended anyway. */
export interface ToWorker {
  readonly answer: Uint8Array;
}

type PGlite = Parameters<typeof pgDump>[0]['pg'];

const QUERY = 0x51;
const SYNC = 0x53;
const TERMINATE = 0x58;
const EMPTY = new Uint8Array();

/** The part of a PGlite object that pg_dump uses. */
class RemoteServer {
  readonly #job: DumpJob;
  readonly #signal: Int32Array;
  /** false until pg_dump has sent its startup packet, the one message without a type */
  #greeted = false;
  #unsent = EMPTY;

  constructor(job: DumpJob) {
    this.#job = job;
    this.#signal = new Int32Array(job.signal);
  }

  execProtocolRawStream(bytes: Uint8Array, options: { onRawData: (bytes: Uint8Array) => void }): void {
    this.#unsent = joined(this.#unsent, bytes);
    if (!this.#greeted) {
      if (this.#unsent.length < startupLengthBytes(this.#unsent)) return;
      this.#greeted = true;
      this.#unsent = EMPTY;
      options.onRawData(this.#job.greeting);
      return;
    }
    const last = lastMessageType(this.#unsent);
    // The connection is ended by the thread that opened it.
    if (last === TERMINATE) this.#unsent = EMPTY;
    if (last !== QUERY && last !== SYNC) return;
    const messages = this.#unsent;
    this.#unsent = EMPTY;
    options.onRawData(this.#ask(messages));
  }

  /** pgDump sets the session back afterwards; this session ends instead. */
  query(): Promise<{ rows: { search_path: string }[] }> {
    return Promise.resolve({ rows: [{ search_path: '' }] });
  }

  exec(): Promise<void> {
    return Promise.resolve();
  }

  #ask(messages: Uint8Array): Uint8Array {
    Atomics.store(this.#signal, 0, 0);
    say({ kind: 'ask', messages });
    const end = performance.now() + this.#job.deadlineMs;
    // The other thread may be late with waking this one for the answer before, which it had found by itself.
    while (Atomics.load(this.#signal, 0) === 0)
      if (Atomics.wait(this.#signal, 0, 0, Math.max(0, end - performance.now())) === 'timed-out')
        throw new Error('no answer in time');
    const received = parentPort && (receiveMessageOnPort(parentPort) as { message: ToWorker } | undefined);
    if (!received) throw new Error('woken without an answer');
    return received.message.answer;
  }
}

function joined(before: Uint8Array, after: Uint8Array): Uint8Array<ArrayBuffer> {
  const both = new Uint8Array(before.length + after.length);
  both.set(before);
  both.set(after, before.length);
  return both;
}

function startupLengthBytes(bytes: Uint8Array): number {
  return bytes.length < 4 ? Infinity : lengthAt(bytes, 0);
}

/** The type of the message that ends exactly where `bytes` end; undefined while the last one is incomplete. */
function lastMessageType(bytes: Uint8Array): number | undefined {
  let at = 0;
  let type: number | undefined;
  while (at < bytes.length) {
    if (at + 5 > bytes.length) return undefined;
    type = bytes[at];
    at += 1 + lengthAt(bytes, at + 1);
  }
  return at === bytes.length ? type : undefined;
}

function lengthAt(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getInt32(at);
}

function say(message: FromWorker): void {
  parentPort?.postMessage(message);
}

async function run(): Promise<void> {
  const job = workerData as DumpJob;
  // pg_dump asks for a whole PGlite and calls only what RemoteServer has.
  const server: unknown = new RemoteServer(job);
  const file = await pgDump({ pg: server as PGlite, args: [...job.args] });
  say({ kind: 'done', dump: await file.text() });
}

await run().catch((error: unknown) => {
  say({ kind: 'failed', problem: error instanceof Error ? error.message : String(error) });
});
