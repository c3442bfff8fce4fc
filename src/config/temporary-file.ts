/** One task: write a file beside another one so that it can take its place by one rename. */
import { open, readFile, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { createHash, randomUUID } from 'node:crypto';

/**
 * Writes `bytes` to `path` with mode and owner of `like`, on disk before it returns. Whoever reads `path` sees the old
 * content or the new one, never a part. May be called again.
 *
 * @throws an error of the file system, also where the owner cannot be kept
 */
export async function writeDurably(path: string, bytes: Buffer, like: string): Promise<void> {
  const { mode, uid, gid } = await stat(like);
  const partial = `${path}.${randomUUID()}`;
  try {
    await withFile(partial, 'wx', async (file) => {
      await file.chmod(mode & 0o7777);
      const own = await file.stat();
      if (own.uid !== uid || own.gid !== gid) await file.chown(uid, gid);
      await file.writeFile(bytes);
      await file.sync();
    });
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

/** Renames, and takes it as done when `from` is not there: someone else was faster. */
export async function renameIfPresent(from: string, to: string): Promise<void> {
  await rename(from, to).catch(unlessAbsent);
}

/** The content, or null when there is no such file. */
export async function readIfPresent(path: string): Promise<Buffer | null> {
  return readFile(path).catch((error: unknown) => {
    unlessAbsent(error);
    return null;
  });
}

/** Makes the renames in `directory` survive a power cut (fsync(2), notes). */
export async function syncDirectory(directory: string): Promise<void> {
  await withFile(directory, 'r', (file) => file.sync());
}

export function digestOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function unlessAbsent(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
}

async function withFile(path: string, flags: string, work: (file: FileHandle) => Promise<void>): Promise<void> {
  const file = await open(path, flags, 0o600);
  try {
    await work(file);
  } finally {
    await file.close();
  }
}
