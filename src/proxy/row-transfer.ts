/**
 * One task: take rows out of a table on one server and put them into it on another, inside the transactions of both.
 *
 * `COPY (DELETE … RETURNING …) TO STDOUT` there is what `COPY … FROM STDIN` reads here: the messages pass as they are, so values are the
 * same to the byte, and no more of them is kept than the sockets hold. While one server does not take more, nothing is read of the other.
 */
import { invariant } from '../errors/invariant.js';
import { frame } from '../wire/backend.js';
import { BACKEND } from '../wire/codes.js';
import { query } from '../wire/frontend.js';
import { REPLY } from './reply-queue.js';
import type { ShardPart } from './shard-part.js';

const COPY_DONE = frame('c');
const COPY_FAIL = frame('f', Buffer.from('the rows could not be taken from their shard\0'));
const REPLIES = [REPLY.query];

/** What the rows are taken with, and put with; both are COPY. */
export interface TransferSql {
  readonly take: string;
  readonly put: string;
}

/** How many rows each of them had. */
export interface Transferred {
  readonly taken: number;
  readonly put: number;
}

/** @throws what the first of them that failed has said; both have ended then */
export async function transferRows(from: ShardPart, to: ShardPart, sql: TransferSql): Promise<Transferred> {
  const receiver = new Receiver(from, to);
  await receiver.begin(sql.put);
  let failure: unknown = null;
  try {
    await from.run({ bytes: query(sql.take), replies: REPLIES }, (type, bytes, continued) => {
      if (type === BACKEND.copyData) receiver.pass(bytes, continued);
    });
  } catch (error) {
    failure = error;
  }
  await receiver.end(failure === null);
  if (failure !== null) throw failure as Error;
  return { taken: countOf(from), put: countOf(to) };
}

/** The server that gets the rows. */
class Receiver {
  readonly #from: ShardPart;
  readonly #to: ShardPart;
  /** of its COPY; a failure is told by {@link end} */
  #ended: Promise<unknown> = Promise.resolve(null);
  #open = false;
  /** of the message that passes in parts */
  #restBytes = 0;

  constructor(from: ShardPart, to: ShardPart) {
    this.#from = from;
    this.#to = to;
  }

  /** @throws ServerError of a server that does not begin */
  async begin(put: string): Promise<void> {
    this.#to.onWritable = () => {
      this.#from.server?.resume();
    };
    await new Promise<void>((resolve, reject) => {
      const ran = this.#to.run({ bytes: query(put), replies: REPLIES }, (type) => {
        if (type !== BACKEND.copyInResponse) return;
        this.#open = true;
        resolve();
      });
      ran.then(() => {
        reject(new Error('the server did not ask for rows'));
      }, reject);
      this.#ended = ran.then(
        () => null,
        (error: unknown) => {
          this.#over();
          return error;
        },
      );
    });
  }

  #over(): void {
    this.#open = false;
    this.#from.server?.resume();
  }

  /** What comes behind its end is thrown away. */
  pass(bytes: Buffer, continued: boolean): void {
    if (!continued) this.#restBytes = bytes.readUInt32BE(1) + 1;
    this.#restBytes -= bytes.length;
    if (this.#open && this.#to.server?.send(bytes) === false) this.#from.server?.pause();
  }

  /** @param good all rows were taken @throws what the server has said against them */
  async end(good: boolean): Promise<void> {
    const { server } = this.#to;
    if (this.#open && server !== null) {
      // A message that was cut off cannot be ended.
      if (this.#restBytes > 0) server.destroy();
      else {
        server.replies.push(REPLY.copyEnd);
        server.send(good ? COPY_DONE : COPY_FAIL);
      }
    }
    const failure = await this.#ended;
    this.#to.onWritable = () => undefined;
    if (good && failure !== null) throw failure as Error;
  }
}

function countOf({ tag }: ShardPart): number {
  const [, count] = /^COPY (\d+)$/.exec(tag) ?? [];
  invariant(count !== undefined, 'a COPY says how many rows it had');
  return Number(count);
}
