/**
 * One task: get the drivers that test/clients tries, once a machine: what is pinned there, from each language's own registry, into a cache
 * outside the tree.
 *
 * Prints as JSON, for each language, the folder with what it needs, or what this machine lacks. Those of Node come with package-lock.json.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const CLIENTS = join(ROOT, 'test', 'clients');
const CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'cutover', 'clients');
const MAVEN_COPY = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy';
/** measured: 58 s of processor time for all of them with empty caches, and two and a half minutes beside a load of 17 on two cores */
const DEADLINE_MS = 10 * 60_000;
const PYTHON_MIN = [3, 11];
const GO_MIN = [1, 25];
const JAVA_MIN = [17];

const LANGUAGES = { python, go, java, postgres };

/** By language: { folder }, or { missing } with what the machine lacks. @throws Error when something cannot be got */
async function clients() {
  const entries = Object.entries(LANGUAGES).map(async ([name, prepare]) => [name, await prepare()]);
  return Object.fromEntries(await Promise.all(entries));
}

async function python() {
  const version = await outputOf('python3', [
    '-c',
    'import sys, sysconfig; print(sys.version, sysconfig.get_platform())',
  ]);
  if (!atLeast(version, PYTHON_MIN)) return missing('Python', PYTHON_MIN);
  if ((await outputOf('python3', ['-m', 'pip', '--version'])) === null) return { missing: 'no pip for python3' };
  const requirements = join(CLIENTS, 'python', 'requirements.txt');
  return cached('python', [requirements], version, async (draft) => {
    const exactly = ['--no-deps', '--require-hashes', '--only-binary', ':all:', '--requirement', requirements];
    await run('python3', [
      '-m',
      'pip',
      'install',
      '--quiet',
      '--disable-pip-version-check',
      '--target',
      draft,
      ...exactly,
    ]);
  });
}

async function go() {
  // Where Go's own installation instructions put it, when it is not on PATH (https://go.dev/doc/install).
  for (const program of ['go', '/usr/local/go/bin/go']) {
    const version = await outputOf(program, ['env', 'GOVERSION', 'GOOS', 'GOARCH']);
    if (!atLeast(version, GO_MIN)) continue;
    const folder = join(CLIENTS, 'go');
    return cached('go', [folder], version, async (draft) => {
      const env = { ...process.env, GOTOOLCHAIN: 'local', GOFLAGS: '' };
      await run(program, ['build', '-buildvcs=false', '-o', `${draft}/`, './pgx', './pq'], { cwd: folder, env });
    });
  }
  return missing('Go', GO_MIN);
}

async function java() {
  const version = await outputOf('javac', ['-version']);
  if (!atLeast(version, JAVA_MIN)) return missing('JDK', JAVA_MIN);
  if ((await outputOf('mvn', ['--version'])) === null) return { missing: 'no Maven' };
  const folder = join(CLIENTS, 'java');
  return cached('java', [folder], version, async (draft) => {
    const [sum, jar] = readFileSync(join(folder, 'driver.sha256'), 'utf8').trim().split(/\s+/);
    const [, name, number] = /^(\w+)-(.+)\.jar$/.exec(jar);
    const artifact = `-Dartifact=org.postgresql:${name}:${number}`;
    await run('mvn', ['--quiet', '--batch-mode', MAVEN_COPY, artifact, `-DoutputDirectory=${draft}`], { cwd: draft });
    const found = createHash('sha256')
      .update(readFileSync(join(draft, jar)))
      .digest('hex');
    if (found !== sum) throw new Error(`${jar} has the sha256 ${found}, and not the one in driver.sha256`);
    renameSync(join(draft, jar), join(draft, 'driver.jar'));
    const sources = readdirSync(folder).filter((file) => file.endsWith('.java'));
    const options = ['-encoding', 'UTF-8', '-cp', join(draft, 'driver.jar'), '-d', draft];
    await run('javac', [...options, ...sources.map((file) => join(folder, file))]);
  });
}

/** Nothing is got for these: they come with PostgreSQL. */
async function postgres() {
  for (const program of ['bash', 'psql', 'pgbench']) {
    if ((await outputOf(program, ['--version'])) === null) return { missing: `no ${program}` };
  }
  return { folder: '' };
}

/** The folder for these sources and this version of the language, filled by `fill` when it is not there. */
async function cached(name, sources, version, fill) {
  const hash = createHash('sha256').update(version);
  for (const file of sources.flatMap(filesIn)) hash.update(file.slice(CLIENTS.length)).update(readFileSync(file));
  const folder = join(CACHE, `${name}-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(folder)) return { folder };
  process.stderr.write(`cutover: getting the drivers of test/clients for ${name}, once\n`);
  mkdirSync(CACHE, { recursive: true });
  const draft = mkdtempSync(join(CACHE, `${name}-draft-`));
  try {
    await fill(draft);
    renameSync(draft, folder);
  } catch (error) {
    // Another run that does the same was faster.
    if (!existsSync(folder)) throw error;
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
  return { folder };
}

function filesIn(path) {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path)
    .sort()
    .flatMap((name) => filesIn(join(path, name)));
}

function missing(what, version) {
  return { missing: `no ${what} ${version.join('.')} or later` };
}

/** Whether the first number in what a program says of its version is enough. */
function atLeast(version, minimum) {
  const found = /\d+(\.\d+)*/
    .exec(version ?? '')?.[0]
    .split('.')
    .map(Number);
  if (found === undefined) return false;
  const [major, minor = 0] = minimum;
  return found[0] > major || (found[0] === major && (found[1] ?? 0) >= minor);
}

/** What it prints; null when it cannot be run. */
async function outputOf(program, args) {
  try {
    const { stdout, stderr } = await run(program, args);
    return stdout.trim() || stderr.trim();
  } catch {
    return null;
  }
}

function run(program, args, options = {}) {
  return promisify(execFile)(program, args, { timeout: DEADLINE_MS, ...options });
}

process.stdout.write(`${JSON.stringify(await clients())}\n`);
