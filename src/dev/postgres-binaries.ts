/**
 * One task: find the embedded PostgreSQL of a major version and put it where its user can run it.
 *
 * PostgreSQL refuses to run as root (PostgreSQL documentation, 18.1), and the unprivileged user it then runs as cannot
 * read a package folder under a home of mode 0700. So root runs from a copy in a folder that everybody can read.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, readdirSync } from 'node:fs';
import { readlinkSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative } from 'node:path';
import { CutoverError } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';

/** 14 is packaged for Linux on x64 only. */
export type Major = 14 | 15 | 16 | 17 | 18;

export interface Binaries {
  readonly initdb: string;
  readonly postgres: string;
  /** of the package */
  readonly version: string;
  /** who runs them; undefined = this process's own user */
  readonly runAs: RunAs | undefined;
}

export interface RunAs {
  readonly uid: number;
  readonly gid: number;
}

const UNPRIVILEGED_USER = 'nobody';
const EXECUTABLE_OR_DIRECTORY = 0o111;
const PASSABLE_FOR_OTHERS = 0o001;

/**
 * The binaries of `major` for this platform, ready to run. The first call of root on a machine copies about 60 MB.
 *
 * @throws CutoverError `dev_server_unavailable` when the optional package is not installed
 */
export function postgresBinaries(major: Major): Binaries {
  const packageFolder = packageFolderOf(major);
  const runAs = unprivilegedUser();
  // npm made no symlinks when its install scripts were switched off: a copy gets them here.
  const native = join(packageFolder, 'native');
  const runnable = runAs === undefined && missingSymlinks(native).length === 0;
  const home = runnable ? native : readableCopy(packageFolder);
  const version = versionOf(packageFolder);
  return { initdb: join(home, 'bin', 'initdb'), postgres: join(home, 'bin', 'postgres'), version, runAs };
}

/** Whether there is a package of `major` for this platform at all. */
export function isPackaged(major: Major): boolean {
  return major !== 14 || (process.platform === 'linux' && process.arch === 'x64');
}

/** A folder for temporary files that the server's user can reach: TMPDIR, or /tmp where root's TMPDIR is closed to others. */
export function temporaryFolder(): string {
  return isRoot() && !isOpenToOthers(tmpdir()) ? '/tmp' : tmpdir();
}

/** Whether every user may pass through it, and through all that it is in. */
function isOpenToOthers(folder: string): boolean {
  const mode = statSync(folder, { throwIfNoEntry: false })?.mode ?? 0;
  return (mode & PASSABLE_FOR_OTHERS) !== 0 && (dirname(folder) === folder || isOpenToOthers(dirname(folder)));
}

function packageFolderOf(major: Major): string {
  const name = `postgres-${major.toString()}-${process.platform}-${process.arch}`;
  try {
    return dirname(dirname(createRequire(import.meta.url).resolve(name)));
  } catch (cause) {
    const problem = `the optional package ${name} is not installed`;
    const platforms = major === 14 ? 'Linux, x64' : 'Linux or macOS, x64 or arm64';
    const remedy = `Run \`npm ci\` without --omit=optional, on ${platforms}.`;
    throw new CutoverError(
      'dev_server_unavailable',
      { server: `PostgreSQL ${major.toString()}`, problem, remedy },
      { cause },
    );
  }
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}

function unprivilegedUser(): RunAs | undefined {
  if (!isRoot()) return undefined;
  const id = (flag: string): number => Number(execFileSync('id', [flag, UNPRIVILEGED_USER], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}

/**
 * The shared copy of one version below `parent`, made once by whoever comes first; a damaged one is made again.
 * May be called by several processes at once: a copy appears in one step and whole.
 *
 * @throws CutoverError `dev_server_unavailable` when something there stays incomplete
 */
export function readableCopy(packageFolder: string, parent = sharedFolder()): string {
  const version = versionOf(packageFolder);
  const target = join(parent, version);
  const source = join(packageFolder, 'native');
  if (isComplete(source, target)) return target;

  const draft = mkdtempSync(join(parent, `${version}-`));
  const complete = join(draft, 'native');
  cpSync(source, complete, { recursive: true, verbatimSymlinks: true });
  for (const link of missingSymlinks(complete)) symlinkSync(link.to, link.path);
  makeReadable(complete);
  invariant(isComplete(source, complete), `the copy of PostgreSQL ${version} is complete`);
  publish(complete, target, draft);
  if (isComplete(source, target)) return target;
  throw new CutoverError('dev_server_unavailable', {
    server: `PostgreSQL ${version}`,
    problem: `its copy ${target} is incomplete`,
    remedy: `Remove ${target} and start again.`,
  });
}

function versionOf(packageFolder: string): string {
  const description: unknown = JSON.parse(readFileSync(join(packageFolder, 'package.json'), 'utf8'));
  invariant(
    typeof description === 'object' && description !== null && 'version' in description,
    'a package has a version',
  );
  return String(description.version);
}

/** Shared by the processes of this user. Others may write to /tmp: only a folder of our own, that nobody else can write to, is trusted. */
export function sharedFolder(): string {
  const uid = process.getuid?.() ?? 0;
  // Not root's TMPDIR: it may be one for a single run.
  const folder = join(isRoot() ? '/tmp' : tmpdir(), `cutover-postgres-${uid.toString()}`);
  mkdirSync(folder, { recursive: true });
  const stat = lstatSync(folder);
  if (!stat.isDirectory() || stat.uid !== uid) {
    const problem = `${folder} belongs to somebody else`;
    throw new CutoverError('dev_server_unavailable', { server: 'PostgreSQL', problem, remedy: 'Remove that folder.' });
  }
  chmodSync(folder, 0o755);
  return folder;
}

/** Moves a finished copy into place in one step. Another process may have done the same a moment ago: its copy stays. */
function publish(complete: string, target: string, draft: string): void {
  if (existsSync(target) && !isComplete(complete, target)) renameSync(target, join(draft, 'damaged'));
  try {
    renameSync(complete, target);
  } catch (error) {
    if (!existsSync(target)) throw error;
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}

/** True when `copy` has every file of `source` with its size, and every symlink it needs. */
function isComplete(source: string, copy: string): boolean {
  return (
    filesOf(source).every((file) => {
      const stat = lstatSync(join(copy, file.path), { throwIfNoEntry: false });
      return stat?.size === file.sizeBytes;
    }) && missingSymlinks(copy).length === 0
  );
}

function filesOf(folder: string): readonly { readonly path: string; readonly sizeBytes: number }[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .map((path) => ({ path: relative(folder, path), sizeBytes: lstatSync(path).size }));
}

interface Symlink {
  readonly path: string;
  /** name of the file beside it */
  readonly to: string;
}

/** The symlinks listed in the package's pg-symlinks.json that are not there. */
function missingSymlinks(native: string): readonly Symlink[] {
  const list = JSON.parse(readFileSync(join(native, 'pg-symlinks.json'), 'utf8')) as readonly {
    readonly source: string;
    readonly target: string;
  }[];
  return list
    .map(({ source, target }) => ({ path: join(native, relative('native', target)), to: basename(source) }))
    .filter(({ path, to }) => !isLinkTo(path, to));
}

function isLinkTo(path: string, to: string): boolean {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return false;
  // npm installs the real file where the file system has no symlinks.
  return !stat.isSymbolicLink() || basename(readlinkSync(path)) === to;
}

function makeReadable(folder: string): void {
  chmodSync(folder, 0o755);
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isSymbolicLink()) continue;
    const path = join(entry.parentPath, entry.name);
    const runnable = entry.isDirectory() || (lstatSync(path).mode & EXECUTABLE_OR_DIRECTORY) !== 0;
    chmodSync(path, runnable ? 0o755 : 0o644);
  }
}
