/** One task: what clients of lists did and were told, as plain data that can be kept in a file and judged later. */

/** One step of a transaction: an element put at the end of a list, or the whole list as it was read. */
export type Step =
  | { readonly kind: 'append'; readonly key: number; readonly value: number }
  | { readonly kind: 'read'; readonly key: number; readonly items: readonly number[] };

/**
 * `ok`: the client was told that it committed. `fail`: it is certain that it did not, and never will. `unknown`: the
 * connection was lost when the commit was on its way; it may have taken effect, or may still do so later.
 */
export type Outcome = 'ok' | 'fail' | 'unknown';

export interface Transaction {
  /** unique in its history, at least 1 */
  readonly id: number;
  readonly client: string;
  /** before the first byte was sent; milliseconds of one monotonic clock */
  readonly invokedMs: number;
  /** after the last answer was read, or when the client gave up waiting for it */
  readonly completedMs: number;
  readonly outcome: Outcome;
  /** appends as they were sent, reads as they were answered, in the order of the transaction */
  readonly steps: readonly Step[];
  /** what the client read instead of success: an SQLSTATE where there was one, else a sentence */
  readonly error?: string;
}

export interface History {
  /** the number the load was started with */
  readonly seed: number;
  readonly transactions: readonly Transaction[];
  /** errors of clients that wanted to connect, in order; the first thousand */
  readonly refusedLogins: readonly string[];
}

/** Every list after all clients have ended, by key; a key that is absent has an empty list. */
export type FinalState = ReadonlyMap<number, readonly number[]>;

export interface Counts {
  readonly ok: number;
  readonly fail: number;
  readonly unknown: number;
  /** appends of transactions that are `ok` */
  readonly appends: number;
  /** reads of transactions that are `ok` */
  readonly reads: number;
  /** transactions that are `ok` and touched more than one key */
  readonly overSeveralKeys: number;
  /** how often each error was read */
  readonly errors: Readonly<Record<string, number>>;
}

/** How much a history says: a check of an empty one proves nothing. */
export function countsOf(history: History): Counts {
  const of = (outcome: Outcome): readonly Transaction[] => history.transactions.filter((t) => t.outcome === outcome);
  const ok = of('ok');
  const steps = ok.flatMap((t) => t.steps);
  const errors: Record<string, number> = {};
  for (const { error } of history.transactions) if (error !== undefined) errors[error] = (errors[error] ?? 0) + 1;
  return {
    ok: ok.length,
    fail: of('fail').length,
    unknown: of('unknown').length,
    appends: steps.filter((step) => step.kind === 'append').length,
    reads: steps.filter((step) => step.kind === 'read').length,
    overSeveralKeys: ok.filter((t) => new Set(t.steps.map((step) => step.key)).size > 1).length,
    errors,
  };
}

/** `T12 (client 3, 102.1 to 104.2 ms, ok): append 7 to 5, read 3 [1 2]`. Long lists are shown by their end. */
export function describeTransaction(transaction: Transaction): string {
  const { id, client, invokedMs, completedMs, outcome, steps } = transaction;
  const told = steps.map((step) =>
    step.kind === 'append'
      ? `append ${step.value.toString()} to ${step.key.toString()}`
      : `read ${step.key.toString()} ${describeList(step.items)}`,
  );
  return `T${id.toString()} (${client}, ${invokedMs.toFixed(1)} to ${completedMs.toFixed(1)} ms, ${outcome}): ${told.join(', ')}`;
}

const SHOWN_ITEMS_MAX = 8;

/** `[1 2 3]`, or the last elements of a long list and how many stand before them. */
export function describeList(items: readonly number[]): string {
  const hidden = items.length - SHOWN_ITEMS_MAX;
  const shown = hidden > 0 ? [`(${hidden.toString()} more)`, ...items.slice(-SHOWN_ITEMS_MAX)] : items;
  return `[${shown.join(' ')}]`;
}
