/**
 * One task: build dist/: the JavaScript of the sources, and the workflow bundle a worker loads without a stall.
 *
 * It is built beside dist/ and moved into place, so that a running program never sees half of it.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BUILT, ROOT, explain } from './setup.mjs';

/** Builds; throws when a source does not compile. */
export async function build() {
  process.stderr.write('cutover: building\n');
  const started = new Date();
  const draft = join(ROOT, `dist.${process.pid}`);
  try {
    compile(draft);
    await bundleWorkflows(draft);
    replace(draft, join(ROOT, 'dist'));
    // The start of the build, not its end: a source edited meanwhile is newer.
    writeFileSync(join(ROOT, BUILT), started.toISOString());
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}

function compile(outDir) {
  const compiler = createRequire(import.meta.url).resolve('typescript/bin/tsc');
  const args = [compiler, '-p', join(ROOT, 'tsconfig.build.json'), '--outDir', outDir];
  const { status } = spawnSync(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 2, 2] });
  if (status !== 0) throw new Error('the sources do not compile; see above');
}

async function bundleWorkflows(outDir) {
  const workflowsPath = join(outDir, 'workflows', 'index.js');
  if (!existsSync(workflowsPath)) {
    process.stderr.write('cutover: no workflows/index.ts, so no workflow bundle\n');
    return;
  }
  const { bundleWorkflowCode, DefaultLogger } = await import('@temporalio/worker');
  const { code } = await bundleWorkflowCode({ workflowsPath, logger: new DefaultLogger('WARN') });
  writeFileSync(join(outDir, 'workflow-bundle.js'), code);
}

function replace(draft, target) {
  const previous = `${draft}.previous`;
  if (existsSync(target)) renameSync(target, previous);
  renameSync(draft, target);
  rmSync(previous, { recursive: true, force: true });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await build().catch((error) => explain(`the build failed: ${error.message}`));
}
