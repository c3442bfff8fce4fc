/**
 * One task: write lines to a file descriptor without ever waiting for whoever reads them.
 *
 * One write is under way at a time; what comes meanwhile is kept up to a limit, beyond which lines are thrown away and counted: a full pipe
 * must not stop the traffic of a company.
 */
import { write } from 'node:fs';

/** Some ten thousand lines. */
const KEPT_CHARACTERS_MAX = 4 * 1024 * 1024;
const TRY_AGAIN_MS = 20;
const LAST_WORDS_MS = 1_000;

export class LineWriter {
  /** lines thrown away */
  dropped = 0;
  readonly #descriptor: number;
  #kept: string[] = [];
  #keptCharacters = 0;
  #writing = false;
  #idle: (() => void)[] = [];

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  /** @param line with its line end */
  write(line: string): void {
    if (this.#keptCharacters + line.length > KEPT_CHARACTERS_MAX) {
      this.dropped += 1;
      return;
    }
    this.#kept.push(line);
    this.#keptCharacters += line.length;
    if (!this.#writing) this.#next();
  }

  /** To be called before the process ends: resolves when all is written, or after a second in which it was not. */
  async settled(): Promise<void> {
    if (!this.#writing) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#idle.push(resolve);
      timer = setTimeout(resolve, LAST_WORDS_MS);
    });
    clearTimeout(timer);
  }

  #next(): void {
    const text = this.#kept.join('');
    this.#kept = [];
    this.#keptCharacters = 0;
    this.#writing = text !== '';
    if (this.#writing) this.#write(Buffer.from(text));
    else for (const done of this.#idle.splice(0)) done();
  }

  readonly #again = (bytes: Buffer): void => {
    this.#write(bytes);
  };

  #write(bytes: Buffer): void {
    write(this.#descriptor, bytes, (error, count) => {
      // A pipe that does not block is full; after any other error whoever read it is gone, and nobody is left to be told.
      if (error?.code === 'EAGAIN') setTimeout(this.#again, TRY_AGAIN_MS, bytes).unref();
      else if (error === null && count < bytes.length) this.#write(bytes.subarray(count));
      else this.#next();
    });
  }
}

/** Standard error, of which there is one however many logs there are. */
export const STANDARD_ERROR = new LineWriter(2);
