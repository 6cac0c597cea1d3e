@echo off
rem Runs every test of the workspace; arguments go to `cargo test`.
setlocal
cd /d "%~dp0.."
cargo test --workspace --locked %*
exit /b %errorlevel%
