/** One task: `npm test` on a fresh clone: install, build, run every test on real servers, end with `N passed, N failed`. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setUp, ROOT } from './setup.mjs';
import { verdict } from './verdict.mjs';

await setUp();
const folder = mkdtempSync(join(tmpdir(), 'cutover-tests-'));
const summaryFile = join(folder, 'summary.json');
const runnerExitCode = await runTests(await environment(summaryFile));
const summary = existsSync(summaryFile)
  ? JSON.parse(readFileSync(summaryFile, 'utf8'))
  : { passed: 0, failed: 0, skipped: [], broken: ['the test runner ended without a summary'] };
rmSync(folder, { recursive: true, force: true });
const { lines, exitCode } = verdict(summary, runnerExitCode, Boolean(process.env.CI));
process.stdout.write(`${lines.join('\n')}\n`);
process.exitCode = exitCode;

/** Gets the Temporal program and the drivers of test/clients once, ahead, since that takes longer than any test may wait. */
async function environment(file) {
  const drivers = getDrivers();
  const env = { ...process.env, CUTOVER_TEST_SUMMARY: file };
  const finder = join(ROOT, 'dist', 'src', 'dev', 'temporal-binary.js');
  const { temporalBinary } = await import(finder);
  try {
    env.TEMPORAL_BIN = await temporalBinary((sentence) => process.stderr.write(`cutover: ${sentence}\n`));
  } catch (error) {
    process.stderr.write(`cutover: ${error.message}. ${error.remedy ?? ''}\nTests that need Temporal will fail.\n`);
  }
  await drivers;
  return env;
}

/** What cannot be got is told here, and again by the tests that need it, which fail. */
function getDrivers() {
  const child = spawn(process.execPath, [join(ROOT, 'scripts', 'clients.mjs')], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  return new Promise((resolve) => child.once('close', resolve));
}

function runTests(env) {
  const vitest = join(dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs');
  const reporter = join(ROOT, 'scripts', 'summary-reporter.mjs');
  const args = [vitest, 'run', '--reporter=default', `--reporter=${reporter}`, ...process.argv.slice(2)];
  const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'], env });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  return new Promise((resolve) => child.once('close', (code) => resolve(code ?? 1)));
}
