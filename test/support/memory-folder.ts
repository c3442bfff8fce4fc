/**
 * One task: give tests a folder for temporary files in memory, where there is plenty of it.
 *
 * Clusters are made and removed by the hundred, each of a thousand files. A disk is slow at that, and ext4 spends more processor time on
 * finding inodes that were not in use a moment ago than the tests spend on themselves.
 */
import { chmodSync, existsSync, mkdtempSync, statfsSync } from 'node:fs';
import { freemem } from 'node:os';
import { join } from 'node:path';
import { removeAtEnd } from '../../src/dev/guardian.js';

const SHARED_MEMORY = '/dev/shm';
/** Several times what the clusters of all workers take at a time. */
const NEEDED_BYTES = 8 * 1024 ** 3;

/** Sets TMPDIR for all that is started from here, unless a person has set it. The folder goes when this process ends, however it ends. */
export default function setUp(): void {
  if (process.env.TMPDIR !== undefined || !hasPlenty()) return;
  const folder = mkdtempSync(join(SHARED_MEMORY, 'cutover-tests-'));
  removeAtEnd(folder);
  // As root the servers run as another user, who must pass.
  chmodSync(folder, 0o755);
  process.env.TMPDIR = folder;
}

function hasPlenty(): boolean {
  if (!existsSync(SHARED_MEMORY)) return false;
  const { bavail, bsize } = statfsSync(SHARED_MEMORY);
  // What a container may use; nothing or a huge number where it is not limited.
  const allowedBytes = process.constrainedMemory() || Infinity;
  return Math.min(bavail * bsize, freemem(), allowedBytes) >= NEEDED_BYTES;
}
