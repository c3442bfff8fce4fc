/** One task: carry a statement on several servers from its first server to its commit, and answer the client what one server would. */
import type { CutoverError } from '../errors/errors.js';
import { ServerError, type ShardPart } from './shard-part.js';
import { replyOf, type PartsClient, type StatementParts } from './shard-parts.js';

/** What a statement on several servers needs of its session. */
export interface WriteListener {
  /** for the client */
  readonly say: (bytes: Buffer) => void;
  /** all servers are there */
  readonly started: () => void;
  /** the statement that the batch parses is known to be good */
  readonly parsed: () => void;
  /** The schema of every shard is about to be changed. @throws CutoverError where that may not be */
  readonly schemaMayChange: () => Promise<void>;
  /** Why a change of the schema need not go on; null for most. */
  readonly overdue: () => CutoverError | null;
  /** It has been changed in these sessions, and is about to be committed. @throws CutoverError where that may not be */
  readonly schemaMayCommit: (parts: readonly ShardPart[]) => Promise<void>;
  /** The schema was changed on every shard. @returns what the client is told of that; empty for nothing */
  readonly schemaChanged: () => Promise<Buffer>;
  /** it has failed, and the client was told why */
  readonly failed: (error: unknown) => void;
}

/** `anew`: the shards are others by now; `refused`: by the fence of one of them. In both nothing was changed and the client has no answer. */
export type WriteOutcome = 'committed' | 'failed' | 'anew' | 'refused';

const FENCE_REFUSAL = 'CUT01';

/** What a server said before the first row, kept until it is certain that the batch is not run anew: the client would be told twice. */
export class Beginning {
  #kept: Buffer[] | null = [];
  #parsed = false;
  readonly #listener: Pick<WriteListener, 'say' | 'parsed'>;

  constructor(listener: Pick<WriteListener, 'say' | 'parsed'>) {
    this.#listener = listener;
  }

  get told(): boolean {
    return this.#kept === null;
  }

  /** @param parsed it says that the statement was parsed */
  keep(bytes: Buffer, parsed = false): void {
    this.#kept?.push(Buffer.from(bytes));
    this.#parsed ||= parsed;
  }

  /** May be called again. */
  tell(): void {
    const kept = this.#kept;
    if (kept === null) return;
    this.#kept = null;
    if (this.#parsed) this.#listener.parsed();
    if (kept.length > 0) this.#listener.say(Buffer.concat(kept));
  }
}

export interface Answering {
  readonly client: PartsClient;
  readonly parts: StatementParts;
  readonly listener: Pick<WriteListener, 'say' | 'started' | 'failed'>;
  readonly beginning: Beginning;
  /** a refusal of the fence may be asked about */
  readonly mayAsk: boolean;
}

/**
 * Never rejects.
 *
 * @param work runs the statement on the servers, which have no transaction yet; what it throws rolls back
 * @param ended what the client gets when it is committed, up to ReadyForQuery
 */
export async function answerWith(
  { client, parts, listener, beginning, mayAsk }: Answering,
  work: () => Promise<void>,
  ended: () => Promise<readonly Buffer[]>,
): Promise<WriteOutcome> {
  let open = false;
  try {
    if (!(await parts.borrow())) return 'anew';
    listener.started();
    open = true;
    await work();
    open = false;
    await parts.commit();
    beginning.tell();
    listener.say(Buffer.concat([...(await ended()), parts.ready(true)]));
    return 'committed';
  } catch (error) {
    if (open) await parts.rollBack();
    const refused = error instanceof ServerError && error.code === FENCE_REFUSAL;
    if (refused && mayAsk && !beginning.told) return 'refused';
    beginning.tell();
    listener.say(Buffer.concat([replyOf(error, client.database), parts.ready(false)]));
    listener.failed(error);
    return 'failed';
  } finally {
    parts.release();
  }
}
