/**
 * One task: keep the configuration of a process without clients in step with its files.
 *
 * An engine that runs apart is told of no RELOAD and of no swap: a proxy on another machine may have made it. Its files are looked at
 * once a second. What cannot be loaded (half of an edit) leaves the last one in force.
 */
import { isDeepStrictEqual } from 'node:util';
import { messageOf } from '../errors/errors.js';
import type { Config } from './config.js';

const LOOK_MS = 1_000;

export interface WatchedConfigListener {
  /** the files were read anew and say something else */
  changed(config: Config): void;
  /** they cannot be loaded; what was in force stays */
  refused(problem: string): void;
}

export class WatchedConfig {
  readonly #load: () => Config;
  readonly #listener: WatchedConfigListener;
  readonly #timer: NodeJS.Timeout;
  #current: Config;
  /** what was told last of files that cannot be loaded */
  #problem: string | null = null;

  /** @throws CutoverError `configuration_invalid` | `environment_invalid`: there is nothing yet that could stay in force */
  constructor(load: () => Config, listener: WatchedConfigListener) {
    this.#load = load;
    this.#listener = listener;
    this.#current = load();
    this.#timer = setInterval(this.#look, LOOK_MS).unref();
  }

  get current(): Config {
    return this.#current;
  }

  /** Ends the watching; may be called again. */
  close(): void {
    clearInterval(this.#timer);
  }

  readonly #look = (): void => {
    try {
      const loaded = this.#load();
      this.#problem = null;
      if (isDeepStrictEqual(loaded, this.#current)) return;
      this.#current = loaded;
      this.#listener.changed(loaded);
    } catch (error) {
      const problem = messageOf(error);
      if (problem === this.#problem) return;
      this.#problem = problem;
      this.#listener.refused(problem);
    }
  };
}
