/** One task: find and remove the files that were written beside pgdog.toml and users.toml for a swap that never came. */
import { readdir, realpath, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { ConfigFiles } from './load.js';

/** `<file>.cutover-<epoch>.next`, `.previous` and `.journal` (save.ts), whole or cut short by a crash. */
const PREPARED = /^\.cutover-[\w-]*\.(next|previous|journal)(\.[0-9a-f-]{36})?$/;

/**
 * Their paths, sorted. Not the journal of a swap that is under way (`<file>.cutover.journal`): the next start finishes that.
 *
 * @throws an error of the file system
 */
export async function preparedFiles(files: ConfigFiles): Promise<readonly string[]> {
  const found = new Set<string>();
  for (const file of [files.config, files.users]) {
    const live = await realpath(file);
    const name = basename(live);
    for (const entry of await readdir(dirname(live)))
      if (entry.startsWith(name) && PREPARED.test(entry.slice(name.length))) found.add(join(dirname(live), entry));
  }
  return [...found].sort();
}

/** May be called again. A proxy that still meant to use them prepares anew. */
export async function removePrepared(paths: readonly string[]): Promise<void> {
  for (const path of paths) await rm(path, { force: true });
}
