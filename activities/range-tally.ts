/** One task: count what ranges have brought, so that nothing goes back when one of them is begun anew. */

/** What has come of one table by one stream. */
export interface Came {
  /** of ranges that are done */
  readonly rows: number;
  /** the most there ever was, with those under way */
  readonly bytes: number;
}

export class RangeTally {
  readonly #counts = new Map<string, { rows: number; done: number; underWay: number; most: number }>();

  /** A range of `key` begins. */
  begin(key: string): RangeCount {
    const count = this.#counts.get(key) ?? { rows: 0, done: 0, underWay: 0, most: 0 };
    this.#counts.set(key, count);
    let bytes = 0;
    return {
      add: (more) => {
        bytes += more;
        count.underWay += more;
        count.most = Math.max(count.most, count.done + count.underWay);
      },
      done: (rows) => {
        count.rows += rows;
        count.done += bytes;
        count.underWay -= bytes;
      },
      failed: () => {
        count.underWay -= bytes;
      },
    };
  }

  came(key: string): Came {
    const count = this.#counts.get(key);
    return { rows: count?.rows ?? 0, bytes: count?.most ?? 0 };
  }
}

/** Of one try to bring a range. */
export interface RangeCount {
  add(bytes: number): void;
  done(rows: number): void;
  failed(): void;
}
