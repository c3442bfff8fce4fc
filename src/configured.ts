/** One task: say by which configuration a process without clients goes: what its files say, looked at again and again, or what a proxy tells it. */
import type { Config } from './config/config.js';
import { loadConfig, type ConfigFiles } from './config/load.js';
import { WatchedConfig } from './config/watched.js';
import { CutoverError } from './errors/errors.js';
import { Directory } from './fleet/directory.js';
import type { Logger } from './proxy/logger.js';

export interface Configured {
  /** what is in force now */
  readonly config: () => Config;
  /** which servers that names */
  readonly directory: Directory;
  /** may be called again */
  close(): void;
}

export interface FilesOptions {
  readonly files: ConfigFiles;
  /** wins over file and environment */
  readonly temporalAddress?: string;
  readonly logger: Logger;
  /** called with the configuration of the start and with each that the files have later */
  readonly onConfig?: (config: Config) => void;
}

/**
 * Goes by the files until it is closed.
 *
 * @throws CutoverError `admin_password_missing` when the proxy's admin password is not in the files: it would be another one
 *   in each process; `configuration_invalid` | `environment_invalid`
 */
export function byFiles(options: FilesOptions): Configured {
  const { files, logger, temporalAddress } = options;
  const load = (): Config => {
    const loaded = loadConfig(files);
    if (!loaded.admin.passwordConfigured) throw new CutoverError('admin_password_missing', {});
    return temporalAddress === undefined
      ? loaded
      : { ...loaded, temporal: { ...loaded.temporal, address: temporalAddress } };
  };
  const watched = new WatchedConfig(load, {
    changed: () => {
      // Other servers may stand at the addresses.
      directory.forget();
      options.onConfig?.(watched.current);
      logger.info({}, 'the engine has read its configuration anew');
    },
    refused: (problem) => {
      logger.error({ problem }, 'the engine keeps its configuration: the files cannot be loaded');
    },
  });
  options.onConfig?.(watched.current);
  const directory = new Directory(() => watched.current);
  return {
    config: () => watched.current,
    directory,
    close: () => {
      watched.close();
    },
  };
}

/** Goes by what somebody else has in force, who says when other servers may stand at its addresses. */
export class Told implements Configured {
  readonly directory = new Directory(() => this.config());
  #current: Config;

  constructor(config: Config) {
    this.#current = config;
  }

  readonly config = (): Config => this.#current;

  tell(config: Config): void {
    this.#current = config;
  }

  close(): void {
    // Nothing was opened.
  }
}
