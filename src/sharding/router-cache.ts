/** One task: keep verdicts by statement text, within a limit of bytes; the least recently used go first. */
import type { StatementVerdict } from './statement-verdict.js';

interface Entry {
  readonly verdicts: readonly StatementVerdict[];
  readonly bytes: number;
}

/** A map entry, the arrays and objects around a verdict: more than measured, so that the limit is kept. */
const ENTRY_BYTES = 512;
/** JavaScript keeps up to two bytes a character; objects take a few times their JSON. */
const BYTES_PER_CHARACTER = 2;
const OBJECT_FACTOR = 4;
/** One giant statement must not push out everything else. */
const ENTRY_SHARE = 16;

/** A cache of one routing context: whoever changes scheme or catalogue makes a new one. */
export class VerdictCache {
  private readonly entries = new Map<string, Entry>();
  private usedBytes = 0;
  private hits = 0;
  private misses = 0;

  /** @param limitBytes what all entries together may take, keys included; 0 keeps nothing */
  constructor(private readonly limitBytes: number) {}

  /** The verdicts on a text, computed by `analyse` where they are not kept. */
  verdictsOn(
    sql: string,
    searchPath: readonly string[],
    analyse: () => readonly StatementVerdict[],
  ): readonly StatementVerdict[] {
    const key = `${searchPath.join('\0')}\0\0${sql}`;
    const kept = this.entries.get(key);
    if (kept !== undefined) {
      this.hits += 1;
      this.entries.delete(key);
      this.entries.set(key, kept);
      return kept.verdicts;
    }
    this.misses += 1;
    const verdicts = analyse();
    this.keep(key, verdicts);
    return verdicts;
  }

  get statistics(): {
    readonly entries: number;
    readonly bytes: number;
    readonly hits: number;
    readonly misses: number;
  } {
    return { entries: this.entries.size, bytes: this.usedBytes, hits: this.hits, misses: this.misses };
  }

  private keep(key: string, verdicts: readonly StatementVerdict[]): void {
    const bytes = ENTRY_BYTES + key.length * BYTES_PER_CHARACTER + sizeOf(verdicts);
    if (bytes > this.limitBytes / ENTRY_SHARE) return;
    this.entries.set(key, { verdicts, bytes });
    this.usedBytes += bytes;
    for (const [oldest, entry] of this.entries) {
      if (this.usedBytes <= this.limitBytes) return;
      this.entries.delete(oldest);
      this.usedBytes -= entry.bytes;
    }
  }
}

function sizeOf(verdicts: readonly StatementVerdict[]): number {
  const json = JSON.stringify(verdicts, (_, value: unknown) => (typeof value === 'bigint' ? value.toString() : value));
  return json.length * OBJECT_FACTOR;
}
