/** One task: find the `temporal` program, or get it, for a dev server. */
import { execFile } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { CutoverError, messageOf } from '../errors/errors.js';

/** Later tags of the CLI carry a `replace` directive in go.mod, which `go install` refuses. */
const CLI_VERSION = 'v1.5.1';
const CLI_PACKAGE = `github.com/temporalio/cli/cmd/temporal@${CLI_VERSION}`;
const PROGRAM = process.platform === 'win32' ? 'temporal.exe' : 'temporal';
const VERSION_DEADLINE_MS = 20_000;
const DOWNLOAD_DEADLINE_MS = 90_000;
/** measured: 2 min 40 s on two idle cores with an empty module cache */
const BUILD_DEADLINE_MS = 15 * 60_000;

let found: Promise<string> | undefined;

/**
 * The path of a `temporal` program that runs: TEMPORAL_BIN, PATH, Go's folder, our cache, the SDK's own download, else
 * built with Go (minutes, once a machine). Asked once per process.
 *
 * @param report is told, in one sentence each, what takes long
 * @throws CutoverError `dev_server_unavailable` when there is none, with what to do
 */
export function temporalBinary(report: (sentence: string) => void = () => undefined): Promise<string> {
  found ??= find(report).catch((error: unknown) => {
    found = undefined;
    throw error;
  });
  return found;
}

async function find(report: (sentence: string) => void): Promise<string> {
  const chosen = process.env.TEMPORAL_BIN;
  if (chosen !== undefined && chosen !== '') {
    if (await runs(chosen)) return chosen;
    throw unavailable(`TEMPORAL_BIN (${chosen}) does not run`, 'Correct TEMPORAL_BIN or unset it.');
  }
  for (const candidate of candidates()) if (await runs(candidate)) return candidate;
  const downloaded = await download(report);
  if (downloaded !== undefined) return downloaded;
  return build(report);
}

function candidates(): readonly string[] {
  const onPath = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '');
  const folders = [...onPath, join(process.env.GOPATH ?? join(homedir(), 'go'), 'bin'), cacheFolder()];
  return folders.map((folder) => join(folder, PROGRAM)).filter(isExecutable);
}

function cacheFolder(): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'cutover', `temporal-${CLI_VERSION}`);
}

/** The SDK can only download and start in one step: it starts a server, which is stopped again at once. */
async function download(report: (sentence: string) => void): Promise<string | undefined> {
  const folder = cacheFolder();
  mkdirSync(folder, { recursive: true });
  try {
    // A development package: a production install does without the download.
    const { TestWorkflowEnvironment } = await import('@temporalio/testing');
    report('No temporal program found; trying the download of the Temporal SDK.');
    const started = TestWorkflowEnvironment.createLocal({
      server: { executable: { type: 'cached-download', downloadDir: folder } },
    });
    const environment = await withDeadline(started, DOWNLOAD_DEADLINE_MS);
    await environment.teardown();
  } catch {
    return undefined;
  }
  for (const name of readdirSync(folder)) {
    const candidate = join(folder, name);
    if (name.startsWith('temporal') && isExecutable(candidate) && (await runs(candidate))) return candidate;
  }
  return undefined;
}

/** Builds in a folder of its own and moves the result into place: two builds at once do not disturb each other. */
async function build(report: (sentence: string) => void): Promise<string> {
  const remedy =
    'Install the Temporal CLI (https://docs.temporal.io/cli) or Go 1.24 or later, or point TEMPORAL_BIN at the program.';
  const go = await goProgram();
  if (go === undefined) throw unavailable('no temporal program on this machine, no download and no Go', remedy);
  const folder = cacheFolder();
  mkdirSync(folder, { recursive: true });
  const draft = mkdtempSync(join(folder, 'build-'));
  try {
    report(`Building the Temporal CLI ${CLI_VERSION} with Go; this takes minutes, once.`);
    const env = { ...process.env, GOBIN: draft, GOFLAGS: '-mod=mod' };
    await promisify(execFile)(go, ['install', CLI_PACKAGE], { env, timeout: BUILD_DEADLINE_MS });
    const target = join(folder, PROGRAM);
    renameSync(join(draft, PROGRAM), target);
    return target;
  } catch (cause) {
    throw unavailable(`Go could not build it: ${messageOf(cause)}`, remedy, cause);
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}

async function goProgram(): Promise<string | undefined> {
  // Where Go's own installation instructions put it, when nobody says otherwise (https://go.dev/doc/install).
  const installed = join(process.env.GOROOT ?? '/usr/local/go', 'bin', 'go');
  for (const candidate of ['go', installed]) if (await runs(candidate, 'version')) return candidate;
  return undefined;
}

async function runs(program: string, argument = '--version'): Promise<boolean> {
  try {
    await promisify(execFile)(program, [argument], { timeout: VERSION_DEADLINE_MS });
    return true;
  } catch {
    return false;
  }
}

function isExecutable(path: string): boolean {
  if (!existsSync(path)) return false;
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

async function withDeadline<T>(work: Promise<T>, deadlineMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`not done within ${deadlineMs.toString()} ms`));
    }, deadlineMs);
  });
  try {
    return await Promise.race([work, deadline]);
  } finally {
    clearTimeout(timer);
  }
}

function unavailable(problem: string, remedy: string, cause?: unknown): CutoverError {
  return new CutoverError('dev_server_unavailable', { server: 'Temporal', problem, remedy }, { cause });
}
