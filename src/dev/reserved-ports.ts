/**
 * One task: let no two processes of this user choose the same port, also while nobody listens at it: before a server is up, and while one that
 * was killed is started again.
 *
 * A port that was chosen is a file, with the process that it belongs to in it, for as long as that lives.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isRunning } from './processes.js';

const own = new Set<number>();
let folder: string | null = null;

/** False where a process that lives has it. It is kept until this process ends. */
export function reservePort(port: number): boolean {
  folder ??= prepared();
  try {
    writeFileSync(join(folder, port.toString()), process.pid.toString(), { flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
  own.add(port);
  return true;
}

/** What processes that are gone have left is taken away, once: a file is never taken over, so that no two can do so at once. */
function prepared(): string {
  // By number: in a container a user may have no name. Without numbers (Windows) everybody has a temporary folder of his own.
  const path = join(tmpdir(), `cutover-ports-${process.getuid?.().toString() ?? 'own'}`);
  mkdirSync(path, { recursive: true, mode: 0o700 });
  for (const name of readdirSync(path)) if (isLeft(join(path, name))) rmSync(join(path, name), { force: true });
  process.once('exit', () => {
    for (const port of own) rmSync(join(path, port.toString()), { force: true });
  });
  return path;
}

function isLeft(file: string): boolean {
  let owner: string;
  try {
    owner = readFileSync(file, 'utf8');
  } catch {
    return false;
  }
  // Empty: it is being written.
  return owner !== '' && !isRunning(Number(owner));
}
