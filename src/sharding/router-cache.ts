/** One task: keep what was analysed by text and search path, within a limit of bytes; what was not used lately goes first. */

interface Entry<Value> {
  readonly key: string;
  readonly value: Value;
  readonly bytes: number;
  readonly path: PathEntries<Value>;
  /** since it was last looked at to be thrown away */
  used: boolean;
}

interface PathEntries<Value> {
  readonly name: string;
  readonly entries: Map<string, Entry<Value>>;
}

/** A map entry, the arrays and objects around a verdict: more than measured, so that the limit is kept. */
const ENTRY_BYTES = 512;
/** JavaScript keeps up to two bytes a character; objects take a few times their JSON. */
const BYTES_PER_CHARACTER = 2;
const OBJECT_FACTOR = 4;
/** One giant statement must not push out everything else. */
const ENTRY_SHARE = 16;

/** A cache of one routing context, of verdicts or of what else follows from a text: whoever changes scheme or catalogue makes a new one. */
export class TextCache<Value extends object> {
  readonly #paths = new Map<string, PathEntries<Value>>();
  /** in the order in which they are looked at to be thrown away */
  readonly #queue = new Set<Entry<Value>>();
  /** by the very arrays that are asked with: each session has one for as long as its settings stay */
  readonly #known = new WeakMap<readonly string[], PathEntries<Value>>();
  #usedBytes = 0;
  #hits = 0;
  #misses = 0;

  /** @param limitBytes what all entries together may take, keys included; 0 keeps nothing */
  constructor(private readonly limitBytes: number) {}

  /** What is kept of a text, or of a template; null for nothing. */
  get(text: string, searchPath: readonly string[]): Value | null {
    const entry = this.#pathOf(searchPath).entries.get(text);
    if (entry === undefined) return null;
    entry.used = true;
    this.#hits += 1;
    return entry.value;
  }

  /** @param value plain data, bigints among it */
  keep(text: string, searchPath: readonly string[], value: Value): void {
    this.#misses += 1;
    const path = this.#pathOf(searchPath);
    const bytes = ENTRY_BYTES + (path.name.length + text.length) * BYTES_PER_CHARACTER + sizeOf(value);
    if (bytes > this.limitBytes / ENTRY_SHARE || path.entries.has(text)) return;
    const entry = { key: text, value, bytes, path, used: false };
    this.#paths.set(path.name, path);
    path.entries.set(text, entry);
    this.#queue.add(entry);
    this.#usedBytes += bytes;
    this.#makeRoom();
  }

  get statistics(): {
    readonly entries: number;
    readonly bytes: number;
    readonly hits: number;
    readonly misses: number;
  } {
    return { entries: this.#queue.size, bytes: this.#usedBytes, hits: this.#hits, misses: this.#misses };
  }

  #pathOf(searchPath: readonly string[]): PathEntries<Value> {
    const known = this.#known.get(searchPath);
    if (known !== undefined) return known;
    const name = searchPath.join('\0');
    const path = this.#paths.get(name) ?? { name, entries: new Map<string, Entry<Value>>() };
    this.#known.set(searchPath, path);
    return path;
  }

  /** Each entry passes once at most: at the second time it has not been used. */
  #makeRoom(): void {
    for (const entry of this.#queue) {
      if (this.#usedBytes <= this.limitBytes) return;
      this.#queue.delete(entry);
      if (entry.used) {
        entry.used = false;
        this.#queue.add(entry);
      } else this.#forget(entry);
    }
  }

  #forget({ key, path, bytes }: Entry<Value>): void {
    path.entries.delete(key);
    this.#usedBytes -= bytes;
    if (path.entries.size === 0 && this.#paths.get(path.name) === path) this.#paths.delete(path.name);
  }
}

function sizeOf(value: object): number {
  const json = JSON.stringify(value, (_, inside: unknown) => (typeof inside === 'bigint' ? inside.toString() : inside));
  return json.length * OBJECT_FACTOR;
}
