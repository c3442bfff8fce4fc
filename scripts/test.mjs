/** One task: `npm test` on a fresh clone: install, build, run every test on real servers, end with `N passed, N failed`. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setUp, ROOT } from './setup.mjs';

await setUp();
const folder = mkdtempSync(join(tmpdir(), 'cutover-tests-'));
const summaryFile = join(folder, 'summary.json');
const exitCode = await runTests(await environment(summaryFile));
const summary = existsSync(summaryFile)
  ? JSON.parse(readFileSync(summaryFile, 'utf8'))
  : { passed: 0, failed: 0, skipped: [], broken: ['the test runner ended without a summary'] };
rmSync(folder, { recursive: true, force: true });
report(summary, exitCode);

/** Finds the Temporal program once, ahead, since building it takes longer than any test may wait. */
async function environment(file) {
  const env = { ...process.env, CUTOVER_TEST_SUMMARY: file };
  const finder = join(ROOT, 'dist', 'src', 'dev', 'temporal-binary.js');
  const { temporalBinary } = await import(finder);
  try {
    env.TEMPORAL_BIN = await temporalBinary((sentence) => process.stderr.write(`cutover: ${sentence}\n`));
  } catch (error) {
    process.stderr.write(`cutover: ${error.message}. ${error.remedy ?? ''}\nTests that need Temporal will fail.\n`);
  }
  return env;
}

function runTests(env) {
  const vitest = join(dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs');
  const reporter = join(ROOT, 'scripts', 'summary-reporter.mjs');
  const args = [vitest, 'run', '--reporter=default', `--reporter=${reporter}`, ...process.argv.slice(2)];
  const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'], env });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  return new Promise((resolve) => child.once('close', (code) => resolve(code ?? 1)));
}

function report({ passed, failed, skipped, broken }, code) {
  for (const problem of broken) process.stdout.write(`failed outside a test: ${problem}\n`);
  for (const reason of skipped) process.stdout.write(`skipped: ${reason}\n`);
  // A run that broke without a failing test must not read as if all had passed.
  const failures = failed + broken.length || (code === 0 ? 0 : 1);
  const ran = passed + failures > 0;
  if (!ran) process.stdout.write('no test ran\n');
  const mayNotSkip = Boolean(process.env.CI) && skipped.length > 0;
  if (mayNotSkip) process.stdout.write('nothing may be skipped in CI\n');
  process.exitCode = failures === 0 && ran && !mayNotSkip ? 0 : 1;
  const skips = skipped.length > 0 ? `, ${skipped.length} skipped` : '';
  process.stdout.write(`${passed} passed, ${failures} failed${skips}\n`);
}
