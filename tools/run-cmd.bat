@echo off
rem Runs atelier from the sources, here: builds it if needed, then hands over all arguments. See run-cmd.
setlocal
set "exe=%~dp0..\target\release\atelier.exe"
set "quiet="
if exist "%exe%" set "quiet=--quiet"
pushd "%~dp0.."
cargo build %quiet% --release --locked -p atelier --target-dir target --features "%ATELIER_FEATURES%" 1>&2
if errorlevel 1 (popd & exit /b 1)
popd
"%exe%" %*
exit /b %errorlevel%
