/** One task: keep the configuration files of a node in step with the side that serves: prepared ahead, put in place afterwards. */
import type { Config } from '../config/config.js';
import { loadConfig } from '../config/load.js';
import { commitSwap, discardPrepared, prepareSwap, type PreparedFiles } from '../config/save.js';
import { addressServing, sameAddress, type ServerAddress } from '../config/swap.js';
import { messageOf } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import type { Directory } from './directory.js';
import type { Side, SwapRequest } from './node.js';

export interface FilesLog {
  warn(details: object, message: string): void;
}

export class SwappedFiles {
  readonly #config: () => Config;
  readonly #directory: Directory;
  readonly #log: FilesLog;

  constructor(config: () => Config, directory: Directory, log: FilesLog) {
    this.#config = config;
    this.#directory = directory;
    this.#log = log;
  }

  /** Whether the files on disk name the side that serves; true where there are none. */
  serve(database: string): boolean {
    const { files, databases } = this.#config();
    if (!files) return true;
    const inForce = addressServing(databases, database);
    try {
      const onDisk: ServerAddress | null = addressServing(loadConfig(files).databases, database);
      return inForce !== null && onDisk !== null && sameAddress(inForce, onDisk);
    } catch {
      // Files that cannot be loaded do not name any side.
      return false;
    }
  }

  /** The swapped files beside the live ones; null where this process was configured in memory. */
  async prepare(request: SwapRequest): Promise<PreparedFiles | null> {
    const { files, databases } = this.#config();
    if (!files) return null;
    const address = addressServing(databases, await this.#directory.nameOf(request.serving));
    invariant(address, 'a side that was found by name has an address');
    return prepareSwap(files, request.database, request.peer, request.epoch.toString(), address);
  }

  /** A disk that is full keeps nobody from moving: it is tried again after the swap, and SHOW NODES tells what is not saved. */
  async tryPrepare(request: SwapRequest): Promise<PreparedFiles | null> {
    try {
      return await this.prepare(request);
    } catch (error) {
      this.#log.warn({ problem: messageOf(error) }, 'the swapped configuration could not be prepared');
      return null;
    }
  }

  /** What a node has to save that learnt from the record what was decided; null where its files are right, or are not saved. */
  missed(database: string, peer: string | null, epoch: number, serving: Side): SwapRequest | null {
    const { saveConfig } = this.#config().cutover;
    if (peer === null || !saveConfig || this.serve(database)) return null;
    return { database, peer, epoch, serving, saveConfig };
  }

  /**
   * Puts the names in force into the files; never rejects. A crash before it is healed at the start: the record says who serves,
   * whatever the files say.
   */
  async save(prepared: PreparedFiles | null, request: SwapRequest): Promise<void> {
    try {
      const inForce = addressServing(this.#config().databases, request.database);
      const fits = prepared !== null && inForce !== null && sameAddress(prepared.serving, inForce);
      // What was prepared for a move that was given up names the wrong side.
      if (prepared && !fits) await discardPrepared(prepared);
      const files = fits ? prepared : await this.prepare(request);
      if (files) await commitSwap(files);
    } catch (error) {
      this.#log.warn(
        { problem: messageOf(error) },
        'the swapped configuration could not be saved; it stands in memory',
      );
    }
  }
}
