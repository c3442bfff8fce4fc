/**
 * One task: make a fresh clone ready to run: packages installed, sources built.
 *
 * Everything in scripts/ is plain JavaScript with Node's built-ins only, because node_modules may be absent.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

const NODE_VERSION_MIN = [20, 12];
const SOURCES = [
  'src',
  'workflows',
  'activities',
  'bench',
  'test/model',
  'test/simulator',
  'test/fuzz',
  'test/history/random.ts',
  'test/faults-run',
  'test/support',
  'test/postgres/prepare-process.ts',
  'test/dev/starts-servers.ts',
  'tsconfig.json',
  'tsconfig.build.json',
  'scripts/build.mjs',
];
/** Which lock file node_modules was installed from. */
const INSTALLED = join(ROOT, 'node_modules', '.cutover-installed');
/** Written last by a build. */
export const BUILT = join('dist', '.built');

/** Installs and builds what is missing or older than its source. Ends the process with one clear line when it cannot. */
export async function setUp() {
  checkNode();
  install();
  if (isBuilt()) return;
  const { build } = await import('./build.mjs');
  await orExplain('the build failed', build);
}

/** Sets up, then runs built JavaScript in this process, so that its signals and exit code are this process's own. */
export async function runBuilt(path) {
  await setUp();
  const file = join(ROOT, 'dist', path);
  if (!existsSync(file)) explain(`dist/${path} does not exist: this version has no such program`);
  process.argv[1] = file;
  await import(file);
}

/** Says what went wrong in one line and ends the process. */
export function explain(problem) {
  process.stderr.write(`cutover: ${problem}\n`);
  process.exit(1);
}

async function orExplain(what, work) {
  try {
    await work();
  } catch (error) {
    explain(`${what}: ${error.message}`);
  }
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  const [majorMin, minorMin] = NODE_VERSION_MIN;
  if (major > majorMin || (major === majorMin && minor >= minorMin)) return;
  explain(`Node ${NODE_VERSION_MIN.join('.')} or later is needed, this is ${process.versions.node}`);
}

function install() {
  const lock = createHash('sha256')
    .update(readFileSync(join(ROOT, 'package-lock.json')))
    .digest('hex');
  if (existsSync(INSTALLED) && readFileSync(INSTALLED, 'utf8') === lock) return;
  process.stderr.write('cutover: installing packages (npm ci)\n');
  // CI=true: npm asks nothing. Development packages are needed whatever NODE_ENV says.
  const result = npm(['ci', '--include=dev', '--include=optional', '--no-audit', '--no-fund']);
  if (result.error) explain(`npm could not be run: ${result.error.message}`);
  if (result.status !== 0) explain('npm ci failed; its reason is above');
  writeFileSync(INSTALLED, lock);
}

function npm(args) {
  const options = { cwd: ROOT, stdio: ['ignore', 2, 2], env: { ...process.env, CI: 'true' } };
  // Started by npm: the very same npm, whether or not it is on PATH.
  const path = process.env.npm_execpath;
  if (path?.endsWith('.js')) return spawnSync(process.execPath, [path, ...args], options);
  return spawnSync('npm', args, options);
}

function isBuilt() {
  const stamp = join(ROOT, BUILT);
  if (!existsSync(stamp)) return false;
  const builtAt = statSync(stamp).mtimeMs;
  return [...SOURCES, 'package-lock.json'].every((path) => newestChange(join(ROOT, path)) <= builtAt);
}

/** The latest change in a file or a folder; a removed file changes its folder. */
function newestChange(path) {
  if (!existsSync(path)) return 0;
  const own = statSync(path);
  if (!own.isDirectory()) return own.mtimeMs;
  return Math.max(own.mtimeMs, ...readdirSync(path).map((name) => newestChange(join(path, name))));
}
