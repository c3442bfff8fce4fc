/** One task: keep what is known of statements by their text, within a limit of bytes; the least recently used go first. */

interface Entry<Known> {
  readonly known: Known;
  readonly bytes: number;
}

/** A map entry, the arrays and objects around a verdict: more than measured, so that the limit is kept. */
const ENTRY_BYTES = 512;
/** JavaScript keeps up to two bytes a character; objects take a few times their JSON. */
const BYTES_PER_CHARACTER = 2;
const OBJECT_FACTOR = 4;
/** One giant statement must not push out everything else. */
const ENTRY_SHARE = 16;

/** A cache of one routing context, of verdicts or of what else follows from a text: whoever changes scheme or catalogue makes a new one. */
export class TextCache<Known> {
  private readonly entries = new Map<string, Entry<Known>>();
  private usedBytes = 0;
  private hits = 0;
  private misses = 0;

  /** @param limitBytes what all entries together may take, keys included; 0 keeps nothing */
  constructor(private readonly limitBytes: number) {}

  /** What is known of a text, computed by `analyse` where it is not kept. */
  of(sql: string, searchPath: readonly string[], analyse: () => Known): Known {
    const key = `${searchPath.join('\0')}\0\0${sql}`;
    const kept = this.entries.get(key);
    if (kept !== undefined) {
      this.hits += 1;
      this.entries.delete(key);
      this.entries.set(key, kept);
      return kept.known;
    }
    this.misses += 1;
    const known = analyse();
    this.keep(key, known);
    return known;
  }

  get statistics(): {
    readonly entries: number;
    readonly bytes: number;
    readonly hits: number;
    readonly misses: number;
  } {
    return { entries: this.entries.size, bytes: this.usedBytes, hits: this.hits, misses: this.misses };
  }

  private keep(key: string, known: Known): void {
    const bytes = ENTRY_BYTES + key.length * BYTES_PER_CHARACTER + sizeOf(known);
    if (bytes > this.limitBytes / ENTRY_SHARE) return;
    this.entries.set(key, { known, bytes });
    this.usedBytes += bytes;
    for (const [oldest, entry] of this.entries) {
      if (this.usedBytes <= this.limitBytes) return;
      this.entries.delete(oldest);
      this.usedBytes -= entry.bytes;
    }
  }
}

function sizeOf(known: unknown): number {
  const json = JSON.stringify(known, (_, value: unknown) => (typeof value === 'bigint' ? value.toString() : value));
  return json.length * OBJECT_FACTOR;
}
